"""Many small models: seconds for a matrix and its JSON, for pictures and pages, and what a large header takes.

    python benchmarks/many_models.py [--models 2000] [--drawn 300] [--tensors 240000]

Prints a row for each, in CPU seconds of this process, or of one of its own for headers, with the memory that it took.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import networkx as nx
import numpy as np
from matplotlib.figure import Figure

os.environ["KINSHIP_CACHE"] = "off"

HEADER = """
import resource, sys, time
from pathlib import Path
from kinship.checkpoints.header import read_header
from kinship.errors import UnsupportedCheckpoint
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start = peak(), time.process_time()
try:
    found = f"{len(read_header(Path(sys.argv[1]))):,} tensors"
except UnsupportedCheckpoint:
    found = "refused"
print(f"{found}: {time.process_time() - start:.1f} s, {peak() - before:.0f} MB")
"""


def safetensors(path: Path, header: str, data: bytes) -> str:
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + data)
    return str(path)


def tiny(path: Path, seed: int) -> str:
    values = np.random.default_rng(seed).standard_normal(256).astype("<f4")
    header = json.dumps({"w": {"dtype": "F32", "shape": [16, 16], "data_offsets": [0, 1024]}})
    return safetensors(path, header, values.tobytes())


def timed(name: str, work: Callable[[], object]) -> None:
    start = time.process_time()
    work()
    print(f"{name:<28} {time.process_time() - start:6.1f} s", flush=True)


def matrix(folder: Path, count: int) -> None:
    from service.answers.matrix import measure_matrix

    base, *models = [tiny(folder / f"m{place:05}.safetensors", place) for place in range(count + 1)]
    timed(f"matrix of {count:,}, JSON", lambda: measure_matrix(models, base).to_json())


def pictures(folder: Path, count: int) -> None:
    from kinship.measures.matrix import KinshipMatrix
    from kinship.pictures.family import family_figure
    from kinship.pictures.plots import dendrogram_figure, heatmap
    from kinship.trees.graph import add_descent, placed
    from service.pages.files import save_figure
    from service.pages.report import matrix_page

    values = np.corrcoef(np.random.default_rng(0).normal(size=(count, 40)))
    made = KinshipMatrix("pcc", "base", tuple(f"models/llama-{place:04}" for place in range(count)), values)
    tree: nx.DiGraph[str] = nx.DiGraph()
    for child in range(1, count):
        add_descent(tree, f"m{(child - 1) // 3}", f"m{child}", "finetune", "weights", confidence=0.9)
    family = placed(tree)
    figures: dict[str, Callable[[], Figure]] = {
        "heatmap": lambda: heatmap(made),
        "dendrogram": lambda: dendrogram_figure(made),
        "family tree": lambda: family_figure(family),
    }

    def save(draw: Callable[[], Figure], suffix: str) -> None:
        save_figure(draw(), folder / f"picture.{suffix}", force=True)

    for name, draw in figures.items():
        for suffix in ("png", "svg"):
            timed(f"{name} of {count}, {suffix}", partial(save, draw, suffix))
    timed(f"matrix of {count}, html", lambda: matrix_page(made))


def headers(folder: Path, count: int) -> None:
    for tensors in (count, 4 * count):
        entries = (
            f'"model.layers.{place // 1000}.experts.{place}.w":{{"dtype":"F32","shape":[1],'
            f'"data_offsets":[{4 * place},{4 * place + 4}]}}'
            for place in range(tensors)
        )
        path = safetensors(folder / "header.safetensors", "{" + ",".join(entries) + "}", bytes(4 * tensors))
        print(f"header of {tensors:,} tensors", end=" ", flush=True)
        subprocess.run([sys.executable, "-c", HEADER, path], check=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--models", type=int, default=2000)
    options.add_argument("--drawn", type=int, default=300)
    options.add_argument("--tensors", type=int, default=240_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as made:
        headers(Path(made), given.tensors)
        matrix(Path(made), given.models)
        pictures(Path(made), given.drawn)


if __name__ == "__main__":
    main()
