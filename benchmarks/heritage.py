"""How right `kinship tree --recover` is, on families grown with known truth: the base present and withheld.

    python benchmarks/heritage.py [--families 21] [--first 1000] [--folder KEEP] [--stories FILE]

Signals were weighted on families of seeds below 10; give other seeds here.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KINSHIP_CACHE", "off")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from kinship.heritage import recover
from tests.kinship.heritage.growth import STORY, grow_or_load, pretrained
from tests.kinship.heritage.judging import Verdict, judge


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--families", type=int, default=21)
    parser.add_argument("--first", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="Keep the families here, and take up those that are here.")
    parser.add_argument("--stories", type=Path, help="Weights of stories260K: families of nine are grown from it.")
    asked = parser.parse_args()
    start, shape, size = (lambda: pretrained(asked.stories), STORY, 9) if asked.stories else (None, None, None)
    torch.set_num_threads(1)
    total = {"base present": Verdict(), "base withheld": Verdict()}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(asked.first, asked.first + asked.families):
            folder = (asked.folder or Path(scratch)) / str(seed)
            grown = grow_or_load(seed, folder, start, shape, size)
            base = next(member.name for member in grown.members if member.kind == "base")
            for case, withheld in (("base present", frozenset()), ("base withheld", frozenset({base}))):
                paths = {m.name: folder / f"{m.name}.safetensors" for m in grown.members if m.name not in withheld}
                heritage = recover(list(paths.values()))
                one = judge(grown, heritage, {str(path): name for name, path in paths.items()}, withheld)
                total[case].add(one)
                print(f"{seed} {case}: {len(paths)} models, F1 {one.f1:.2f}, false links {one.false_links}", flush=True)
    for case, verdict in total.items():
        print(report(case, verdict))


def report(case: str, verdict: Verdict) -> str:
    lines = [
        f"\n{case}: {verdict.true} edges",
        f"  all edges      precision {verdict.precision:.3f}  recall {verdict.recall:.3f}  F1 {verdict.f1:.3f}",
        f"  direction      {verdict.direction:.3f} of {verdict.undirected} edges between the right models",
        f"  merge edges    {verdict.merges_right} right of {verdict.merges_told} told, {verdict.merges_true} true",
        f"  training edges {verdict.trained_right} right of {verdict.trained_told} told, {verdict.trained_true} true",
        f"  linear weights largest error {max(verdict.coefficient_errors, default=float('nan')):.1e}",
        f"  false links    {verdict.false_links} of {verdict.outsiders} outsiders",
        "  kinds (true, told): " + ", ".join(f"{a}/{b} {n}" for (a, b), n in sorted(verdict.kinds.items())),
    ]
    told = np.array(verdict.calibration, dtype=float).reshape(-1, 2)
    for low, high in ((0, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
        inside = (told[:, 0] >= low) & (told[:, 0] < high)
        if inside.any():
            mean, right = told[inside].mean(0)
            lines.append(
                f"  confidence {low:.1f}-{min(high, 1):.1f}: {inside.sum()} edges, said {mean:.2f}, right {right:.2f}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
