"""Every path that a GPU has, in one script: its numbers held against the CPU's, and what it gains.

    python benchmarks/gpu.py [--work FOLDER] [--family FOLDER] [--device cuda] [--quick] [--only PART] [--again]

Needs no network. Parts, each printed and kept in FOLDER/gpu.json as soon as it is done, so that a script that was
stopped goes on with the next one:

  matrix    the Gram pass of 127M and 1.1B models against the CPU's; bytes a second beside those that a copy from
            pinned memory to the device moves
  merge     each method whose kernel runs on the device, against the CPU's weights
  child     milliseconds from a recipe to weights in the live model, at 127M and 1.1B (random weights)
  score     documents a second; scores against the CPU's; batches halved where the memory is made too small
  evolve    a whole `kinship evolve` on the family, and what it found

FAMILY is what `kinship demo` writes as ``family``; left out, a tiny one is trained, and models as large as SmolLM2-135M
with random weights take its tokenizer and tasks. With --device cpu --quick the script tries itself.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from evaluation_overhead import absolute_tasks, noisy_copy
from kinship_speed import SIZES, make
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from evaluators.base import Candidate
from evaluators.live import LiveModel, dtype_on
from evaluators.make import make_evaluator
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.opening import open_checkpoint
from kinship.measures.alignment import align
from kinship.measures.gram import gram_table
from merging.merge import write_merge
from merging.offspring.span import Genome
from merging.offspring.weights import materialise
from merging.recipe.schema import parse_recipe
from merging.registry import methods
from service.demo.family import TINY, make_family

SMOL = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
ROUNDS = 3


class Bench:
    """Where things lie, and on what the parts run."""

    def __init__(self, work: Path, device: str, family: Path | None, *, quick: bool) -> None:
        self.work, self.device, self.quick = work, device, quick
        self.sizes = ["127M"] if quick else list(SIZES)
        self._family = family

    def family(self) -> tuple[Path, list[Path], Path, list[str]]:
        """Base, founders, folder of tasks and their names."""
        if self._family:
            base, tasks = self._family / "base", self._family / "tasks"
            founders = sorted(path.parent for path in self._family.glob("*/config.json") if path.parent != base)
        else:
            tiny = make_family(self.work / "tiny", TINY)
            base, founders, tasks = tiny.base, list(tiny.founders), tiny.tasks
            if not self.quick:
                base, founders = widened(base, len(founders), self.work / "wide")
        tasks = absolute_tasks(tasks, self.work / "tasks")
        names = sorted(yaml.safe_load(path.read_text())["task"] for path in tasks.glob("*.yaml"))
        return base, founders, tasks, names[: 2 if self.quick else None]

    def wait(self) -> None:
        """Until the device has done what it was asked."""
        if self.device != "cpu":
            torch.cuda.synchronize()

    def seconds(self, action: Callable[[], object]) -> float:
        """The median of some rounds, after one that is not counted."""
        found = []
        for _ in range(ROUNDS + 1):
            self.wait()
            started = time.perf_counter()
            action()
            self.wait()
            found.append(time.perf_counter() - started)
        return statistics.median(found[1:])


def widened(tiny: Path, count: int, folder: Path) -> tuple[Path, list[Path]]:
    """A base of SmolLM2-135M's size with the tokenizer of ``tiny``, and fine-tunes of it: random weights."""
    base = folder / "base"
    if not base.exists():
        small = LlamaConfig.from_pretrained(tiny)
        vocabulary = {name: getattr(small, name) for name in ("vocab_size", "bos_token_id", "eos_token_id")}
        torch.manual_seed(0)
        config = LlamaConfig(**SMOL, num_key_value_heads=3, max_position_embeddings=512, **vocabulary)
        LlamaForCausalLM(config).save_pretrained(base)
        AutoTokenizer.from_pretrained(tiny).save_pretrained(base)
    return base, [noisy_copy(base, folder / f"founder-{seed}", seed) for seed in range(1, count + 1)]


def matrix(bench: Bench) -> dict[str, Any]:
    """Grams on the device and on the CPU; the largest difference in units of the vectors' lengths."""
    found: dict[str, Any] = {}
    for size in bench.sizes:
        with ExitStack() as stack:
            paths = make(bench.work, size, 3)
            models = [stack.enter_context(open_checkpoint(path)) for path in paths]
            alignment = align(models[0], models[1:])
            device = "cpu:0" if bench.device == "cpu" else bench.device  # the device's code, on the CPU
            own, want = (gram_table(models[0], models[1:], alignment, device=one) for one in (device, "cpu"))
            norms = np.sqrt(np.diagonal(want.grams, axis1=1, axis2=2))
            gap = float((np.abs(own.grams - want.grams) / (norms[:, :, None] * norms[:, None, :])).max())
            nbytes = sum(path.stat().st_size for path in paths)
            cpu = bench.seconds(lambda: gram_table(models[0], models[1:], alignment, device="cpu"))  # noqa: B023
            own_s = bench.seconds(lambda: gram_table(models[0], models[1:], alignment, device=device))  # noqa: B023
            found[size] = {
                "largest_difference": gap,
                "cpu_s": cpu,
                "device_s": own_s,
                "GB_per_s": nbytes / own_s / 1e9,
                "copy_limit_GB_per_s": copy_limit(bench),
            }
            assert gap < 3e-7, gap
    return found


def copy_limit(bench: Bench) -> float:
    """GB a second from pinned memory to the device; on the CPU, from memory to memory."""
    source = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=bench.device != "cpu")
    target = torch.empty_like(source, device=bench.device)
    return source.nbytes / bench.seconds(lambda: target.copy_(source, non_blocking=True)) / 1e9


def merge(bench: Bench) -> dict[str, Any]:
    """The largest difference of a weight, in units of the tensor's largest, by method."""
    tiny = make_family(bench.work / "tiny", TINY)
    found = {}
    for name in sorted(name for name, method in methods().items() if method.on_device):
        recipe = {
            "merge_method": name,
            "base_model": str(tiny.base),
            "models": [{"model": str(founder)} for founder in tiny.founders[:3]],
            "parameters": {"task": 0} if name == "emr" else {},
            "dtype": "float32",
        }
        weights = {}
        for device in ("cpu", bench.device):
            folder = write_merge(
                parse_recipe(recipe), bench.work / "merged" / f"{name}-{device}", device=device, force=True
            )
            weights[device] = load_file(folder / "model.safetensors")
        pairs = ((weights[bench.device][tensor], want) for tensor, want in weights["cpu"].items())
        found[name] = max(float((own - want).abs().max() / want.abs().max()) for own, want in pairs)
        assert found[name] < 1e-3, (name, found[name])
    return found


def child(bench: Bench) -> dict[str, Any]:
    """Milliseconds from a recipe of three founders to weights in the model on the device."""
    found: dict[str, Any] = {}
    for size in bench.sizes:
        paths = make(bench.work, size, 3)
        folder = bench.work / f"{size}-model"
        if not folder.exists():
            shape = SIZES[size]
            heads, kv = shape["hidden"] // 64, shape["kv"] // 64
            config = LlamaConfig(
                hidden_size=shape["hidden"], intermediate_size=shape["inner"], num_hidden_layers=shape["layers"],
                num_attention_heads=heads, num_key_value_heads=kv, vocab_size=shape["vocab"], dtype="bfloat16",
            )  # fmt: skip
            config.save_pretrained(folder)
            AutoTokenizer.from_pretrained(make_family(bench.work / "tiny", TINY).base).save_pretrained(folder)
            os.link(paths[0], folder / "model.safetensors")
        with ExitStack() as stack:
            models = [stack.enter_context(open_checkpoint(path)) for path in paths[1:]]
            names = list(models[0].tensors)
            live = LiveModel(stack.enter_context(open_checkpoint(folder)), bench.device, "bfloat16")
            genome = Genome(np.tile([0.5, 0.3, 0.2], (len(names), 1)))
            seconds = bench.seconds(lambda: live.load(materialise(genome, names, models, torch.bfloat16)))  # noqa: B023
            state = live.model.state_dict()
            for name, tensor in materialise(Genome(genome.coefficients[:5]), names[:5], models, torch.bfloat16):
                assert torch.equal(state[name].cpu(), tensor), name
        found[size] = {"ms": 1000 * seconds}
    return found


def score(bench: Bench) -> dict[str, Any]:
    """Documents a second and accuracy on both devices; on a GPU also with memory for no more than a few batches."""
    base, _, tasks = bench.family()
    names = sorted(yaml.safe_load(path.read_text())["task"] for path in tasks.glob("*.yaml"))[
        : 2 if bench.quick else None
    ]
    found: dict[str, Any] = {}
    arms = {"cpu": {"device": "cpu"}, "device": {"device": bench.device, "dtype": "float32"}}
    if bench.device != "cpu":
        arms["device, bf16"] = {"device": bench.device}
        arms["device, little memory"] = {"device": bench.device, "dtype": "float32"}
    with open_checkpoint(base) as model:
        for label, settings in arms.items():
            if "little" in label:
                torch.cuda.empty_cache()
                held = torch.cuda.memory_allocated() + sum(2 * entry.nbytes for entry in model.tensors.values())
                whole = torch.cuda.get_device_properties(0).total_memory
                torch.cuda.set_per_process_memory_fraction(min(1.0, (held + 300e6) / whole))
            given = {"tasks": names, "task_path": str(tasks), **settings}
            evaluator = make_evaluator(EvaluateSettings.model_validate(given), model)
            dtype = dtype_on(settings["device"], settings.get("dtype", "auto"))
            candidate = Candidate("base", "base", lambda: iter((name, model.tensor(name)) for name in model.tensors))
            documents = {task.name: list(task.documents["search"]) for task in evaluator.tasks}
            evaluator.run(candidate, documents)  # prompts are made, batches found
            started = time.perf_counter()
            results = evaluator.run(candidate, documents)
            seconds = time.perf_counter() - started
            accuracy = {name: float(np.mean(list(values.values()))) for name, values in results.items()}
            rate = sum(map(len, documents.values())) / seconds
            found[label] = {"documents_per_s": rate, "dtype": str(dtype), "accuracy": accuracy}
            del evaluator
    if bench.device != "cpu":
        torch.cuda.set_per_process_memory_fraction(1.0)
    for name, value in found["cpu"]["accuracy"].items():
        assert abs(found["device"]["accuracy"][name] - value) < 0.01, (name, found)
    return found


def evolve(bench: Bench) -> dict[str, Any]:
    """A whole search by the command line."""
    base, founders, tasks = bench.family()
    names = sorted(yaml.safe_load(path.read_text())["task"] for path in tasks.glob("*.yaml"))[
        : 2 if bench.quick else None
    ]
    content = {
        "base": str(base),
        "founders": [str(founder) for founder in founders],
        "evaluate": {"tasks": names, "task_path": str(tasks), "device": bench.device},
        "stop": {"evaluations": 4 if bench.quick else 20},
    }
    (bench.work / "run.yml").write_text(yaml.safe_dump(content))
    out = bench.work / "run"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "service.cli", "evolve", str(bench.work / "run.yml"), "--out", str(out)]
    started = time.perf_counter()
    subprocess.run([*command, "--cache", str(bench.work / "scores.sqlite")], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    kept = json.loads((out / "export.json").read_text())
    return {"seconds": seconds, "best": kept["best"], "against": kept["comparisons"][0]}


PARTS = {part.__name__: part for part in (matrix, merge, child, score, evolve)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="where models and results are kept; default: a temporary folder")
    parser.add_argument("--family", type=Path, help="base, founders and tasks as `kinship demo` writes them")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small models and few documents")
    parser.add_argument("--only", choices=list(PARTS), action="append", help="one of the parts; may be repeated")
    parser.add_argument("--again", action="store_true", help="also the parts that are done already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        kept = work / "gpu.json"
        done: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() and not options.again else {}
        bench = Bench(work, options.device, options.family, quick=options.quick)
        name = torch.cuda.get_device_name() if options.device != "cpu" else "the CPU"
        print(f"{name}, torch {torch.__version__}", flush=True)
        for label in options.only or PARTS:
            if label not in done:
                started = time.perf_counter()
                result = PARTS[label](bench)
                done[label] = {"seconds": time.perf_counter() - started, "device": name, "found": result}
                kept.write_text(json.dumps(done, indent=1) + "\n")
            print(label, json.dumps(done[label], indent=1), flush=True)


if __name__ == "__main__":
    main()
