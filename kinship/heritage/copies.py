"""Near copies: the same numbers, the same rounded to a narrower format, the same in integers and back."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kinship.arrays import Float32
from kinship.heritage.distances import Geometry
from kinship.heritage.grids import HALF_ULP, grid_of, lattice_step, to_grid
from kinship.heritage.sampling import Sample, matrices_of

# Share of the sampled weights that must be what rounding the original gives (casts), or within half a step (integers).
CAST, QUANTIZED = 0.999, 0.97
# Share of a quantised model's matrices that lie on a lattice, at least; one alone may be made of few numbers.
MATRICES = 0.3


@dataclass(frozen=True)
class Copy:
    """Model ``child`` is ``parent`` in another form (places in the family)."""

    parent: int
    child: int
    kind: str
    evidence: dict[str, Any]


def identical(geometry: Geometry) -> list[list[int]]:
    """Groups of models that hold the same numbers in all tensors compared, each model in one."""
    same = (geometry.apart == 0).all(0)
    groups: list[list[int]] = []
    for model in range(len(same)):
        home = next((group for group in groups if same[model, group[0]]), None)
        home.append(model) if home is not None else groups.append([model])
    return groups


def casts(samples: Sequence[Sample], models: Sequence[int], geometry: Geometry, grids: Sequence[str]) -> list[Copy]:
    """Models whose weights are those of another rounded to fp16 or bf16; the nearest such other."""
    found = []
    for child in models:
        if grids[child] == "float32":
            continue
        near = [
            other
            for other in sorted(models, key=lambda other: geometry.total[child, other])
            if other != child and grids[other] != grids[child] and _within(geometry, other, child, grids[child])
        ]
        for parent in near[:3]:
            share = _share(samples, parent, child, lambda a, b, grid=grids[child]: to_grid(a, grid) == b)
            if share >= CAST:
                evidence = {"dtype": grids[child], "exactly_rounded": round(share, 6)}
                found.append(Copy(parent, child, "cast", evidence))
                break
    return found


def lattices(samples: Sequence[Sample], model: int, grid: str) -> dict[str, Any]:
    """Steps by name of the sampled matrices of ``model`` that lie on an integer lattice."""
    found = {}
    for one in matrices_of(samples, [model]):
        step = lattice_step(one.of(model), grid)
        if step is not None:
            found[one.name] = step
    return found


def quantised(
    samples: Sequence[Sample], models: Sequence[int], geometry: Geometry, grids: Sequence[str]
) -> tuple[list[Copy], list[int]]:
    """Models with matrices on an integer lattice, and the nearest model within half a step; those without one, too."""
    on_lattice = {model: lattices(samples, model, grids[model]) for model in models}
    found, orphans = [], []
    for child, steps in on_lattice.items():
        if len(steps) < MATRICES * len(matrices_of(samples, [child])):
            continue
        for parent in sorted(models, key=lambda other: geometry.total[child, other])[:4]:
            if parent == child or on_lattice[parent].keys() >= steps.keys():
                continue
            inside, total, levels = 0.0, 0, []
            for one in samples:
                if one.name in steps and child in one.owners and parent in one.owners:
                    a, b = (one.of(model).astype(np.float64) for model in (parent, child))
                    known = HALF_ULP[grids[child]] * np.abs(b)
                    inside += float((np.abs(a - b) <= 0.51 * steps[one.name] + known).sum())
                    total += a.size
                    levels.append(float(np.median(np.ptp(b, axis=1) / steps[one.name][:, 0])))
            if total and inside / total >= QUANTIZED:
                bits = int(np.ceil(np.log2(np.median(levels) + 1)))
                evidence = {"bits": bits, "matrices": len(steps), "within_half_a_step": round(inside / total, 6)}
                found.append(Copy(parent, child, "quantized", evidence))
                break
        else:
            orphans.append(child)
    return found, orphans


def grids_of(samples: Sequence[Sample], count: int) -> list[str]:
    """The number format that each of ``count`` models' weights lie on."""
    return [grid_of(samples, model) for model in range(count)]


def _within(geometry: Geometry, parent: int, child: int, grid: str) -> bool:
    length = geometry.squares[:, child].sum()
    return bool(geometry.total[parent, child] <= (2 * HALF_ULP[grid]) ** 2 * length)


def _share(samples: Sequence[Sample], one: int, other: int, equal: Any) -> float:
    hits, total = 0, 0
    for part in samples:
        if one in part.owners and other in part.owners:
            a, b = (part.of(model) for model in (one, other))
            same: Float32 = equal(a, b)
            hits, total = hits + int(same.sum()), total + same.size
    return hits / total if total else 0.0


_NUMBER = re.compile(r"\.(\d+)\.")
SAME = 0.999999  # cosine of weights that are equal up to a factor


@dataclass(frozen=True)
class Stack:
    """``child`` has tensors of ``parents``; ``origin``: by its names, (parent, name there). share: of its samples."""

    child: int
    parents: tuple[int, ...]
    origin: dict[str, tuple[int, str]]
    share: float


def find_stack(samples: Sequence[Sample], child: int, others: Sequence[int]) -> Stack | None:
    """Where the tensors of ``child`` were taken from among ``others``; None unless most of them were.

    Tensors are compared with those of the same name but for the layer's number. Cost: layers squared times samples.
    """
    kinds: dict[tuple[str, int, int], list[Sample]] = {}
    for one in samples:
        kinds.setdefault((_NUMBER.sub(".*.", one.name), *one.values.shape[1:]), []).append(one)
    origin: dict[str, tuple[int, str]] = {}
    total = 0
    for alike in kinds.values():
        rows = [
            (owner, one.name, _unit(one.values[place]))
            for one in alike
            for place, owner in enumerate(one.owners)
            if owner in others
        ]
        for one in alike:
            if child not in one.owners:
                continue
            total += 1
            mine = _unit(one.of(child))
            cosines = [float(mine @ row) for _, _, row in rows]
            if cosines and max(cosines) > SAME:
                # Of models that share the tensor, the one that gave most so far.
                equal = [rows[index][:2] for index, value in enumerate(cosines) if value > SAME]
                known = [owner for owner, _ in origin.values()]
                origin[one.name] = max(equal, key=lambda entry: (known.count(entry[0]), entry[1] == one.name))
    if not total or len(origin) < 0.8 * total:
        return None
    parents = tuple(sorted({owner for owner, _ in origin.values()}))
    return Stack(child, parents, origin, len(origin) / total)


def _unit(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(-1).astype(np.float64)
    length = np.linalg.norm(flat)
    return np.asarray(flat / length if length > 0 else flat)
