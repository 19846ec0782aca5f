"""Six pairs of four 127M models: this program against the paper's own tool, whole processes, in one run.

    python benchmarks/vs_modelkinship.py --clone FOLDER [--python PYTHON]

FOLDER is a clone of zjunlp/ModelKinship, PYTHON an interpreter that has torch, transformers and click (default: this
one). Models are made here, in fp32, which that tool needs. Prints wall, CPU and peak memory of both, the ratios, and
how far the values of both are from a float64 reference.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from itertools import combinations
from pathlib import Path

import torch
from kinship_speed import SIZES, reference
from transformers import LlamaConfig, LlamaForCausalLM

SIZE = SIZES["127M"]


def make(folder: Path) -> list[Path]:
    """Base and four fine-tunes as Hugging Face folders; the third pair of task vectors is opposed."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=SIZE["hidden"],
        intermediate_size=SIZE["inner"],
        num_hidden_layers=SIZE["layers"],
        num_attention_heads=12,
        vocab_size=SIZE["vocab"],
        max_position_embeddings=256,
    )
    model = LlamaForCausalLM(config)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    common = {name: torch.randn_like(tensor) * 0.001 for name, tensor in base.items()}
    paths = []
    for index in range(5):
        sign = -1.0 if index == 4 else 1.0
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                own = torch.randn_like(tensor) * 0.001
                tensor.copy_(base[name] + (sign * common[name] + own if index else 0.0))
        paths.append(folder / f"model-{index}")
        model.save_pretrained(paths[-1])
    return paths


# A process started from a large one is charged that one's memory; so a small one starts it and reports.
LAUNCHER = """
import json, os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[2:], stdout=open(sys.argv[1], "w"), stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
cost = [time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]
print(json.dumps([os.waitstatus_to_exitcode(status), cost]))
"""


def run(command: list[str], environment: dict[str, str]) -> tuple[str, float, float, float]:
    """Output, wall seconds, CPU seconds and peak MB of one process."""
    with tempfile.NamedTemporaryFile("r") as output:
        launched = subprocess.run(
            [sys.executable, "-S", "-c", LAUNCHER, output.name, *command],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        code, (wall, cpu, peak) = json.loads(launched.stdout)
        if code:
            raise SystemExit(f"{command} failed with {code}")
        return output.read(), wall, cpu, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clone", type=Path, required=True, help="clone of zjunlp/ModelKinship")
    parser.add_argument("--python", default=sys.executable, help="interpreter to run it with")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        base, *models = make(folder)
        files = [path / "model.safetensors" for path in [base, *models]]
        truth = dict(zip(("pcc", "cosine", "euclidean"), reference(files), strict=True))
        for metric, theirs_name in (("pcc", "pcc"), ("cosine", "cs"), ("euclidean", "ed")):
            command = [sys.executable, "-m", "service.cli", "matrix", *map(str, models)]
            ours, *our_cost = run([*command, "--base", str(base), "--metric", metric, "--json"], {})
            values = json.loads(ours)["values"]
            their_cost, their_values = [0.0, 0.0, 0.0], {}
            for one, other in combinations(range(4), 2):
                command = [options.python, "-m", "metrics.run_command", str(models[one]), str(models[other]), str(base)]
                environment = {"PYTHONPATH": str(options.clone), "HF_HUB_OFFLINE": "1"}
                text, wall, cpu, peak = run([*command, theirs_name], environment)
                number = re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)
                their_values[one, other] = float(number[-1])
                their_cost = [their_cost[0] + wall, their_cost[1] + cpu, max(their_cost[2], peak)]
            ratios = [theirs / mine for theirs, mine in zip(their_cost, our_cost, strict=True)]
            print(f"{metric}: six pairs")
            for name, unit, mine, theirs, ratio in zip(
                ("wall", "CPU", "peak memory"), ("s", "s", "MB"), our_cost, their_cost, ratios, strict=True
            ):
                print(
                    f"  {name:12} ours {mine:8.2f} {unit:2}   ModelKinship {theirs:8.2f} {unit:2}   ratio {ratio:6.1f}"
                )
            scale = 1.0 if metric != "euclidean" else float(truth[metric].max())
            mine = max(abs(values[i][j] - truth[metric][i, j]) for i, j in their_values) / scale
            their = max(abs(value - truth[metric][i, j]) for (i, j), value in their_values.items()) / scale
            print(f"  largest error against float64: ours {mine:.1e}, ModelKinship {their:.1e}", flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
