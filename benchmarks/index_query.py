"""The index of sketches on simulated families: query time, bytes a model, and relatives found against exact distances.

    python benchmarks/index_query.py [--families 50] [--size 20] [--tensors 200] [--elements 4096]

A family is a tree: each model is a fine-tune of one before it, by a step of 0.3 to 3 % of its norm, on all tensors or
on a third of them. Roots are drawn apart. One model in ten is asked about; it is in the index too, and not counted.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from kinship.sketches.index import SketchIndex
from kinship.sketches.sketch import Key, Sketch, fold_chunk

NEAREST = 5


def grow(family: int, size: int, names: list[str], elements: int) -> np.ndarray:
    """Weights (size, T, elements) of a family."""
    draw = np.random.default_rng(family)
    models = np.empty((size, len(names), elements), dtype=np.float32)
    models[0] = draw.standard_normal((len(names), elements))
    for child in range(1, size):
        step = np.float32(np.exp(draw.uniform(np.log(0.003), np.log(0.03))))
        changed = np.ones(len(names), dtype=bool) if draw.random() < 0.5 else draw.random(len(names)) < 1 / 3
        noise = draw.standard_normal((len(names), elements)).astype(np.float32)
        models[child] = models[draw.integers(child)] + step * noise * changed[:, None]
    return models


def sketched(weights: np.ndarray, names: list[str]) -> Sketch:
    parts = [fold_chunk(row, 0, name) for name, row in zip(names, weights, strict=True)]
    keys = tuple(Key(name, weights.shape[1]) for name in names)
    sums = np.stack([part.sums for part in parts]).astype(np.float32)
    return Sketch(keys, sums, np.array([part.square for part in parts]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("families", 50), ("size", 20), ("tensors", 200), ("elements", 4096)):
        parser.add_argument(f"--{name}", type=int, default=default)
    wanted = parser.parse_args()
    names = [f"layers.{number}.weight" for number in range(wanted.tensors)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.sqlite"
        index = SketchIndex(path)
        asked: list[tuple[str, Sketch, list[str]]] = []
        folding = 0.0
        for family in range(wanted.families):
            models = grow(family, wanted.size, names, wanted.elements)
            flat = models.reshape(wanted.size, -1)
            for number in range(wanted.size):
                start = time.process_time()
                sketch = sketched(models[number], names)
                folding += time.process_time() - start
                index.add(f"{family}-{number}", sketch)
                if number % 10 == 5:
                    gaps = np.linalg.norm(flat - flat[number], axis=1)
                    near = [f"{family}-{other}" for other in np.argsort(gaps)[1 : NEAREST + 1]]
                    asked.append((f"{family}-{number}", sketch, near))
        count = wanted.families * wanted.size
        opening = time.process_time()
        SketchIndex(path).query(asked[0][1])
        opening = time.process_time() - opening
        fresh = SketchIndex(path)
        fresh.query(asked[0][1])
        times, found_relatives, false_links, kept, first = [], 0, 0, 0, 0
        for id, sketch, near in asked:
            start = time.process_time()
            everyone = fresh.query(sketch)
            times.append(time.process_time() - start)
            related = [relative.id for relative in everyone if relative.related and relative.id != id]
            family = id.split("-")[0] + "-"
            found_relatives += sum(other.startswith(family) for other in related)
            false_links += sum(not other.startswith(family) for other in related)
            kept += len(set(near) & set(related[:NEAREST]))
            first += near[0] in related[:2]
        true = len(asked) * (wanted.size - 1)
        weights = count * wanted.tensors * wanted.elements
        print(f"{count} models of {wanted.tensors} tensors, {len(asked)} asked about")
        print(f"  bytes a model          {os.path.getsize(path) / count:,.0f}")
        print(f"  sketching              {1e9 * folding / weights:.2f} ns of CPU a weight")
        print(f"  query, file to answer  {1e3 * opening:.1f} ms of CPU")
        print(
            f"  query, index in memory {1e3 * np.median(times):.1f} ms of CPU, median; {1e3 * max(times):.1f} ms worst"
        )
        print(f"  relatives found        {found_relatives} of {true} ({found_relatives / true:.2%})")
        print(f"  false links            {false_links} of {len(asked) * (count - wanted.size)}")
        print(f"  {NEAREST} nearest among first {NEAREST}  {kept / (NEAREST * len(asked)):.1%}")
        print(f"  nearest among first 2  {first / len(asked):.1%}")


if __name__ == "__main__":
    main()
