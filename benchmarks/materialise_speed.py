"""How fast does an offspring become weights in memory, against the least that it can cost?

The floor reads the founders' bytes from the page cache by pread and writes the output's bytes once, with as many
threads. Floor and the two ways (into a live model's memory; tensor by tensor) alternate in one process; medians.

    python benchmarks/materialise_speed.py [--size 127M] [--founders 3] [--rounds 5] [--work DIR]
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from kinship_speed import SIZES, forget_peak, make, memory_mb

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.threads import worker_count
from merging.offspring.span import Genome
from merging.offspring.weights import materialise, materialise_into

CHUNK = 1 << 20


def floor(models: list[Checkpoint], places: dict[str, torch.Tensor]) -> None:
    """Read every founder's bytes into a reused buffer, and write every byte of the output once."""

    def work(name: str) -> None:
        out = places[name].view(-1).view(torch.uint8).numpy()
        buffer = np.empty(CHUNK, dtype=np.uint8)
        for model in models:
            entry = model.tensors[name]
            for start in range(0, entry.nbytes, CHUNK):
                size = min(CHUNK, entry.nbytes - start)
                model.read_into(name, start // entry.dtype.itemsize, buffer[:size].data)
        for start in range(0, len(out), CHUNK):
            out[start : start + CHUNK] = buffer[: len(out[start : start + CHUNK])]

    with ThreadPoolExecutor(worker_count()) as pool:
        list(pool.map(work, places))


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def measure(work: Path, size: str, founders: int, rounds: int) -> None:
    paths = make(work, size, founders)
    with ExitStack() as stack:
        models = [stack.enter_context(open_checkpoint(path)) for path in paths[1:]]
        names = list(models[0].tensors)
        genome = Genome(np.tile(np.linspace(0.2, 0.5, founders), (len(names), 1)))
        places = {name: torch.zeros(entry.shape, dtype=torch.bfloat16) for name, entry in models[0].tensors.items()}

        def one_by_one() -> None:
            for name, tensor in materialise(genome, names, models, torch.bfloat16):
                places[name].copy_(tensor)

        def in_place() -> None:
            materialise_into(genome, names, models, places)

        floor(models, places)  # warm the cache
        materialise_into(Genome(genome.coefficients[-1:]), names[-1:], models, places)  # load the compiled kernel
        forget_peak()
        before = memory_mb("VmRSS")
        ways = {"floor": lambda: floor(models, places), "into the model": in_place, "tensor by tensor": one_by_one}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                times[name].append(timed(way))
        peak = memory_mb("VmHWM") - before
    for name, found in times.items():
        ratio = statistics.median(one / least for one, least in zip(found, times["floor"], strict=True))
        print(f"{size:>5} {founders} founders  {name:17} {statistics.median(found):6.2f} s   ratio {ratio:5.2f}")
    print(f"{size:>5} peak memory beside the model: +{peak:.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", action="append", choices=list(SIZES), help="may be repeated; default: both")
    parser.add_argument("--founders", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="keep the checkpoints here")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    print(f"{worker_count()} threads, load {os.getloadavg()[0]:.1f}")
    try:
        for size in SIZES:
            if size in (options.size or SIZES):
                measure(work, size, options.founders, options.rounds)
            else:
                print(f"{size:>5} NOT MEASURED")
    finally:
        if not options.work:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
