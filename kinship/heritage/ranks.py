"""Numerical rank of what training changed: a low one, in matrices alone, is an adapter's (LoRA, arXiv 2106.09685)."""

import math
from dataclasses import dataclass

import numpy as np

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.heritage.grids import HALF_ULP, last_place
from kinship.heritage.sampling import width_of

# A change is of low rank if that is at most this part of the smaller side; larger ranks than PROBES are not looked for.
LOW, PROBES = 0.5, 160
# Matrices looked at.
MOST = 6
# What may be left beside a low rank, in mean squares of rounding.
ROUNDED = 1.5


@dataclass(frozen=True)
class Change:
    """What a child changed: ranks of the changed matrices looked at, and the parts of weights left as they were."""

    ranks: tuple[int, ...]
    sides: tuple[int, ...]
    changed: int
    frozen: tuple[str, ...]
    vectors_changed: bool

    @property
    def lora_rank(self) -> int | None:
        """The rank of an adapter that explains the change; None if no adapter does."""
        low = bool(self.ranks) and all(rank <= LOW * side for rank, side in zip(self.ranks, self.sides, strict=True))
        return max(self.ranks) if low and not self.vectors_changed else None


def change(parent: Checkpoint, child: Checkpoint, changed: list[str], frozen: list[str], grid: str) -> Change:
    """Look at up to `MOST` of the ``changed`` matrices, in float64. Cost: ``m k`` times `PROBES` each."""
    matrices, vectors = [], False
    for name in changed:
        entry = child.tensors[name]
        width = width_of(entry.shape, entry.count)
        if min(width, entry.count // max(width, 1)) > 1:
            matrices.append((name, width))
        else:
            vectors = True
    looked = [matrices[int(place)] for place in np.linspace(0, len(matrices) - 1, min(MOST, len(matrices))).round()]
    ranks = tuple(_rank(parent, child, name, width, grid) for name, width in looked)
    sides = tuple(min(width, child.tensors[name].count // width) for name, width in looked)
    return Change(ranks, sides, len(changed), tuple(frozen), vectors)


def _rank(parent: Checkpoint, child: Checkpoint, name: str, width: int, grid: str) -> int:
    after = child.floats(name).astype(np.float64).reshape(-1, width)
    before = parent.floats(name).astype(np.float64).reshape(-1, width)
    difference = after - before
    total = float(np.square(difference).sum())
    noise = HALF_ULP[grid] * math.sqrt(float(np.square(after).mean()))  # of one weight: rounding of both
    if min(difference.shape) > PROBES:
        # Halko et al., arXiv 0909.4061: the range of a matrix of rank below PROBES shows in that many random mixtures.
        mix = np.random.default_rng(0).standard_normal((width, PROBES))
        basis = np.linalg.qr(difference @ mix)[0]
        difference = basis.T @ difference
    values = np.linalg.svd(difference, compute_uv=False)
    # The largest singular value of noise of this size is below its size times the sum of the roots of the sides.
    floor = noise * (math.sqrt(after.shape[0]) + math.sqrt(width))
    rank = int((values > max(floor, 1e-6 * values[0])).sum())
    if grid == "float32":
        return rank
    # Rounding to 16 bits hides small singular values. What is left beside the others must be no more than it, and less
    # than they are; else the change may be of any rank.
    low = float(np.square(values[:rank]).sum())
    left = total - low
    rounding = float(np.square(last_place(after.astype(np.float32), grid)).sum()) / 12
    return rank if left <= min(ROUNDED * rounding, low) else min(after.shape)
