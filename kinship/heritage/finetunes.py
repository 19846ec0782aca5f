"""Fine-tunes: who was trained from whom, and whether as an adapter.

Of the models that nothing else explains the tree is told by signals (`kinship.heritage.signals`) and a distribution
over all trees (`kinship.heritage.descent`). What training changed is an adapter's (LoRA, arXiv 2106.09685) if its
numerical rank is low and it is in matrices alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kinship.arrays import Float64
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.heritage.descent import branch
from kinship.heritage.family import Family, Finding, Relation
from kinship.heritage.grids import HALF_ULP, last_place
from kinship.heritage.sampling import width_of
from kinship.heritage.signals import NAMES, signals

# A change is of low rank if that is at most this part of the smaller side; larger ranks than PROBES are not looked for.
LOW, PROBES = 0.5, 160
# Matrices looked at.
MOST = 6
# What may be left beside a low rank, in mean squares of rounding.
ROUNDED = 1.5

# What to say where no base is named, unless all edges are surer than this.
SURE = 0.9
UNNAMED = (
    "No base is named. Where the parent of some models is not among those given, the one nearest to it looks like it: "
    f"fine-tunes told at less than {SURE} may be siblings. Name the base where you know it (--base)."
)


def find_finetunes(family: Family) -> Finding:
    """The tree of the models that nothing else explains. Reads some matrices of each edge again, for their rank."""
    values, roots = signals(family)
    tree = branch(values, roots, family.unexplained, family.parents, family.certain)
    found = []
    for child, (parent, confidence) in family.stages.each("Looking at changes", list(tree.items())):
        kind, evidence = _training(family, parent, child, values[parent, child])
        found.append(Relation(child, kind, round(confidence, 4), {parent: evidence}))
    latent, notes = _unrooted(family, [model for model in family.unexplained if model not in tree])
    if family.base is None and any(one.confidence < SURE for one in found):
        notes.append(UNNAMED)
    return Finding(found, latent, notes)


def _unrooted(family: Family, roots: Sequence[int]) -> tuple[list[tuple[tuple[int, ...], str]], list[str]]:
    """What to say of those whose parent is not told: their ancestor is the base, or is not here."""
    if family.base is None and len(roots) > 1:
        return [
            (
                tuple(roots),
                "related; whether one of them is the others' parent, or none that is here, is not told without a base",
            )
        ], []
    if family.base in family.plain and roots:
        base, names = family.id(family.base), ", ".join(map(family.id, roots))
        return [], [f"No parent is told for {names}; {base}, the base, is an ancestor."]
    return [], []


def _training(family: Family, parent: int, child: int, values: Float64) -> tuple[str, dict[str, Any]]:
    """Kind of an edge, ``finetune`` or ``lora``, and what speaks for the edge."""
    geometry, grids = family.geometry, family.grids
    apart = geometry.apart[:, parent, child]
    changed = [name for name, distance in zip(geometry.names, apart, strict=True) if distance > 0]
    coarse = (
        max((grids[parent], grids[child]), key=lambda grid: HALF_ULP[grid]) if grids[child] != "float32" else "float32"
    )
    seen = change(family.compared[parent], family.compared[child], changed, coarse)
    told = dict(zip(NAMES, values.tolist(), strict=True))
    evidence: dict[str, Any] = {
        "relative_change": float(math.sqrt(apart.sum() / max(geometry.squares[:, parent].sum(), 1e-300))),
        "longer_matrices": round(told["longer"] + 0.5, 4),
        "outward": round(float((geometry.squares[:, child] - geometry.squares[:, parent]).sum() / apart.sum()), 4),
        "frozen_share": round(told["frozen"], 4),
        "frozen_tensors": len(geometry.names) - len(changed),
        "ranks": list(seen.ranks),
    }
    if seen.lora_rank is not None:
        return "lora", evidence | {"rank": seen.lora_rank}
    return "finetune", evidence


@dataclass(frozen=True)
class Change:
    """What a child changed: ranks of the changed matrices looked at, with their shorter sides, and whether vectors."""

    ranks: tuple[int, ...]
    sides: tuple[int, ...]
    vectors_changed: bool

    @property
    def lora_rank(self) -> int | None:
        """The rank of an adapter that explains the change; None if no adapter does."""
        low = bool(self.ranks) and all(rank <= LOW * side for rank, side in zip(self.ranks, self.sides, strict=True))
        return max(self.ranks) if low and not self.vectors_changed else None


def change(parent: Checkpoint, child: Checkpoint, changed: Sequence[str], grid: str) -> Change:
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
    return Change(ranks, sides, vectors)


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
