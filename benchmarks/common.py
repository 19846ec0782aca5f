"""What comparisons with other tools share: models by a seed, and whole processes measured from outside."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from kinship_speed import SIZES
from transformers import LlamaConfig, LlamaForCausalLM

SIZE = SIZES["127M"]


def make_models(folder: Path) -> list[Path]:
    """Base and four fine-tunes as Hugging Face folders in fp32; the task vector of the last opposes the others."""
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


class Cost(NamedTuple):
    """Wall seconds, CPU seconds and peak MB of a process."""

    wall: float
    cpu: float
    peak: float


def in_turn(costs: Sequence[Cost]) -> Cost:
    """Cost of processes run one after another."""
    walls, cpus, peaks = zip(*costs, strict=True)
    return Cost(sum(walls), sum(cpus), max(peaks))


class CannotRunError(Exception):
    """A command failed; says which, and how."""


# A process started from a large one is charged that one's memory; so a small one starts it and reports.
LAUNCHER = """
import json, os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[2:], stdout=open(sys.argv[1], "w"), stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
cost = [time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]
print(json.dumps([os.waitstatus_to_exitcode(status), cost]))
"""


def run(command: Sequence[str], environment: dict[str, str] | None = None) -> tuple[str, Cost]:
    """Output and cost of one process, in which we remember nothing of earlier ones; raises `CannotRunError`."""
    with tempfile.NamedTemporaryFile("r") as output:
        launched = subprocess.run(
            [sys.executable, "-S", "-c", LAUNCHER, output.name, *command],
            env=os.environ | {"KINSHIP_CACHE": "off"} | (environment or {}),
            capture_output=True,
            text=True,
        )
        if launched.returncode:
            raise CannotRunError(f"{command[0]} did not start: {launched.stderr.strip().splitlines()[-1]}")
        code, cost = json.loads(launched.stdout)
        text = output.read()
        if code:
            raise CannotRunError(f"{' '.join(command[:4])} ... failed with {code}: {text.strip()[-300:]}")
        return text, Cost(*cost)


def print_costs(turns: Sequence[tuple[Cost, Cost]], name: str) -> None:
    """Medians over ``turns`` of (our cost, cost of ``name``), and of the ratios within each turn."""
    for field, (label, unit) in enumerate((("wall", "s"), ("CPU", "s"), ("peak memory", "MB"))):
        ours, theirs = (statistics.median(turn[side][field] for turn in turns) for side in (0, 1))
        ratio = statistics.median(its[field] / mine[field] for mine, its in turns)
        print(
            f"  {label:12} ours {ours:8.2f} {unit:2}   {name} {theirs:8.2f} {unit:2}   ratio {ratio:6.1f}", flush=True
        )
