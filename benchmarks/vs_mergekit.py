"""`kinship merge` against mergekit 0.1.5: whole processes, one after the other in turns, the same recipe for both.

    python benchmarks/vs_mergekit.py --mergekit ENV [--size 127M] [--method ties] [--rounds 3] [--work DIR]

ENV is a virtual environment with mergekit in it (pip install mergekit==0.1.5), of which nothing is imported here.
Models are Llamas in bf16, made by a seed. Both write a folder of safetensors; ours also hashes parents and output.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from common import CannotRunError, Cost, print_costs, run
from kinship_speed import SIZES, make

HEADS = {"127M": 12, "1.1B": 32}
WEIGHTS: dict[str, Any] = {"weight": 0.5}

# For each method: how many models beside the base, parameters of the models, parameters of the merge.
METHODS: Mapping[str, tuple[int, Mapping[str, Any], Mapping[str, Any]]] = {
    "linear": (3, WEIGHTS, {}),
    "slerp": (2, {}, {"t": 0.4}),
    "task_arithmetic": (3, WEIGHTS, {}),
    "ties": (3, WEIGHTS | {"density": 0.5}, {}),
    "dare_ties": (3, WEIGHTS | {"density": 0.5}, {}),
    "model_stock": (3, {}, {}),
}


def make_folders(work: Path, size: str) -> list[Path]:
    """Base and three fine-tunes as folders that both tools take."""
    sizes = SIZES[size]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": sizes["hidden"],
        "intermediate_size": sizes["inner"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": HEADS[size],
        "num_key_value_heads": HEADS[size] * sizes["kv"] // sizes["hidden"],
        "vocab_size": sizes["vocab"],
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    folders = []
    for file in make(work, size, 3):
        folder = work / file.stem
        folder.mkdir(exist_ok=True)
        if not (folder / "model.safetensors").exists():
            os.link(file, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))
        folders.append(folder)
    return folders


def write_recipe(path: Path, method: str, folders: list[Path]) -> None:
    count, of_model, of_merge = METHODS[method]
    base, *models = folders
    if method == "slerp":
        base = models[0]
    content: dict[str, Any] = {"merge_method": method, "parameters": dict(of_merge)}
    content["models"] = [{"model": str(model), "parameters": dict(of_model)} for model in models[:count]]
    if method != "linear":
        content["base_model"] = str(base)
    path.write_text(yaml.safe_dump(content))


def warm(file: Path) -> None:
    with open(file, "rb", buffering=0) as opened:
        while opened.read(1 << 24):
            pass


def measure(work: Path, size: str, method: str, environment: Path, rounds: int) -> None:
    folders = make_folders(work, size)
    recipe, out = work / f"{size}-{method}.yml", work / "out"
    write_recipe(recipe, method, folders)
    ours = [sys.executable, "-m", "service.cli", "merge", str(recipe), str(out), "--force"]
    theirs = [str(environment / "bin/mergekit-yaml"), str(recipe), str(out)]
    theirs += ["--quiet", "--no-copy-tokenizer", "--no-write-model-card", "--random-seed", "0"]
    turns: list[tuple[Cost, Cost]] = []
    print(f"{size} {method}: {METHODS[method][0]} models, {rounds} rounds", flush=True)
    for _ in range(rounds):
        turn = []
        for command in (ours, theirs):
            shutil.rmtree(out, ignore_errors=True)
            for folder in folders:  # the page cache is warm for both: the other's memory may have emptied it
                warm(folder / "model.safetensors")
            turn.append(run(command, {"HF_HUB_OFFLINE": "1"})[1])
        turns.append((turn[0], turn[1]))
    print_costs(turns, "mergekit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mergekit", type=Path, required=True, help="virtual environment with mergekit in it")
    parser.add_argument("--size", action="append", choices=list(HEADS), help="may be repeated; default: both")
    parser.add_argument("--method", action="append", choices=list(METHODS), help="may be repeated; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="keep the models here")
    options = parser.parse_args()
    work = (options.work or Path(tempfile.mkdtemp())).absolute()
    work.mkdir(parents=True, exist_ok=True)
    try:
        for size in HEADS:
            for method in METHODS:
                if size not in (options.size or HEADS) or method not in (options.method or METHODS):
                    print(f"{size} {method}: NOT MEASURED, not asked for")
                    continue
                needed = 5 * (2.3e9 if size == "1.1B" else 0.26e9)
                if shutil.disk_usage(work).free < 1.5 * needed:
                    print(f"{size} {method}: NOT MEASURED, {1.5 * needed / 1e9:.1f} GB of disk needed")
                    continue
                try:
                    measure(work, size, method, options.mergekit, options.rounds)
                except CannotRunError as error:
                    print(f"{size} {method}: NOT MEASURED, {error}")
                shutil.rmtree(work / "out", ignore_errors=True)
    finally:
        if not options.work:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
