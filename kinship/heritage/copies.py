"""Copies: the same numbers, the same rounded to a narrower format, the same in integers and back; layers stacked anew.

Models of another depth cannot be compared tensor by tensor. Most such are stacks, whose layers are those of others.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kinship.arrays import Float32, Float64
from kinship.heritage.family import EXACT, LIKELY, Family, Finding, Relation
from kinship.heritage.grids import HALF_ULP, lattice_step, to_grid
from kinship.heritage.sampling import Sample, matrices_of, sample

# Confidence; of two models that differ in rows of tokens, which came first is a guess.
DUPLICATE, RESIZED = 0.999, 0.95
# Share of the sampled weights that must be what rounding the original gives (casts), or within half a step (integers).
CAST, QUANTIZED = 0.999, 0.97
# Share of a quantised model's matrices that lie on a lattice, at least; one alone may be made of few numbers.
MATRICES = 0.3
# So many of the nearest models are tried as the original.
NEAREST = 3
# Cosine of weights that are equal up to a factor, and share of a stack's sampled tensors that must be another's.
SAME, STACKED = 0.999999, 0.8


def find_duplicates(family: Family) -> Finding:
    """Models with the same numbers, but perhaps for more rows of tokens; which of equal ones came first is not told."""
    found = []
    for first, *others in family.equals:
        by_rows = {family.token_rows(first): first}
        for other in others:
            rows = family.token_rows(other)
            evidence: dict[str, Any] = {"equal_tensors": len(family.names)}
            if rows in by_rows:
                found.append(Relation(other, "duplicate", DUPLICATE, {by_rows[rows]: evidence}))
            else:
                by_rows[rows] = other
                evidence = {"token_rows": [family.token_rows(first), rows]} | evidence
                found.append(Relation(other, "resized", RESIZED, {first: evidence}))
    return Finding(found)


def find_casts(family: Family) -> Finding:
    """Models whose weights are those of another rounded to fp16 or bf16; the nearest such other."""
    found = []
    for child in family.distinct:
        grid = family.grids[child]
        if grid == "float32":
            continue
        reach = (2 * HALF_ULP[grid]) ** 2 * family.geometry.squares[:, child].sum()
        near = [
            other
            for other in _by_distance(family, child)
            if family.grids[other] != grid and family.geometry.total[other, child] <= reach
        ]
        for parent in near[:NEAREST]:
            share = _share_rounded(family.samples, parent, child, grid)
            if share >= CAST:
                evidence = {"dtype": grid, "exactly_rounded": round(share, 6)}
                found.append(Relation(child, "cast", EXACT, {parent: evidence}))
                break
    return Finding(found)


def find_quantised(family: Family) -> Finding:
    """Models with matrices on an integer lattice, of the nearest model within half a step, if one is here."""
    on_lattice = {model: _lattices(family.samples, model, family.grids[model]) for model in family.distinct}
    found, latent = [], []
    for child, steps in on_lattice.items():
        if len(steps) < MATRICES * len(matrices_of(family.samples, [child])):
            continue
        for parent in _by_distance(family, child)[:NEAREST]:
            if on_lattice[parent].keys() >= steps.keys():
                continue
            share, levels = _within_half_a_step(family, parent, child, steps)
            if share >= QUANTIZED:
                bits = int(np.ceil(np.log2(levels + 1)))
                evidence = {"bits": bits, "matrices": len(steps), "within_half_a_step": round(share, 6)}
                found.append(Relation(child, "quantized", EXACT, {parent: evidence}))
                break
        else:
            found.append(Relation(child, "quantized", EXACT, {}))
            latent.append(((child,), "its weights lie on an integer lattice; the original is not here"))
    return Finding(found, latent)


def find_stacks(family: Family) -> Finding:
    """Models of another depth than the rest, whose layers are those of others; of what is no such, a note.

    Tensors are compared with those of the same name but for the layer's number. Cost: layers squared times samples.
    """
    found, notes = [], []
    samples = sample(family.models, family.stages) if family.aside else []
    for child, reason in family.aside.items():
        taken = _taken(samples, child, range(len(family.compared)))
        if not taken:
            notes.append(f"{family.id(child)} {reason}; it is of this family, and more is not known.")
            continue
        evidence: dict[int, dict[str, Any]] = {}
        for parent in sorted({owner for owner, _ in taken.values()}):
            names = {name: there for name, (owner, there) in taken.items() if owner == parent}
            evidence[parent] = {"method": "passthrough", "share": len(names) / len(taken), "taken": names}
        found.append(Relation(child, "merge", LIKELY, evidence))
    return Finding(found, notes=notes)


def _by_distance(family: Family, model: int) -> list[int]:
    """The other distinct models, the nearest first."""
    others = [other for other in family.distinct if other != model]
    return sorted(others, key=lambda other: family.geometry.total[model, other])


def _share_rounded(samples: Sequence[Sample], parent: int, child: int, grid: str) -> float:
    """Of the child's sampled weights, the share that are the parent's rounded to ``grid``."""
    hits, total = 0, 0
    for one in samples:
        if parent in one.owners and child in one.owners:
            same = to_grid(one.of(parent), grid) == one.of(child)
            hits, total = hits + int(same.sum()), total + same.size
    return hits / total if total else 0.0


def _lattices(samples: Sequence[Sample], model: int, grid: str) -> dict[str, Float64]:
    """Steps by name of the sampled matrices of ``model`` that lie on an integer lattice."""
    steps = {one.name: lattice_step(one.of(model), grid) for one in matrices_of(samples, [model])}
    return {name: step for name, step in steps.items() if step is not None}


def _within_half_a_step(family: Family, parent: int, child: int, steps: Mapping[str, Float64]) -> tuple[float, float]:
    """The share of the child's weights on lattices of ``steps`` that are so near the parent's, and levels of a row."""
    inside, total, levels = 0.0, 0, []
    for one in family.samples:
        if one.name in steps and child in one.owners and parent in one.owners:
            a, b = (one.of(model).astype(np.float64) for model in (parent, child))
            known = HALF_ULP[family.grids[child]] * np.abs(b)
            inside += float((np.abs(a - b) <= 0.51 * steps[one.name] + known).sum())
            total += a.size
            levels.append(float(np.median(np.ptp(b, axis=1) / steps[one.name][:, 0])))
    return (inside / total, float(np.median(levels))) if total else (0.0, 0.0)


def _taken(samples: Sequence[Sample], child: int, others: Sequence[int]) -> dict[str, tuple[int, str]]:
    """Of tensors of ``child``, by name, whose of ``others`` they are and their name there; none unless most are."""
    alike: dict[tuple[str, int, int], list[Sample]] = {}
    for one in samples:
        alike.setdefault((re.sub(r"\.\d+\.", ".*.", one.name), *one.values.shape[1:]), []).append(one)
    found: dict[str, tuple[int, str]] = {}
    total = 0
    for group in alike.values():
        rows = [(owner, one.name, _unit(one.of(owner))) for one in group for owner in one.owners if owner in others]
        for one in group:
            if child not in one.owners:
                continue
            total += 1
            mine = _unit(one.of(child))
            equal = [(owner, name) for owner, name, row in rows if float(mine @ row) > SAME]
            if equal:
                # Of models that share the tensor, the one that gave most so far.
                known = [owner for owner, _ in found.values()]
                found[one.name] = max(equal, key=lambda entry: (known.count(entry[0]), entry[1] == one.name))
    return found if len(found) >= STACKED * total else {}


def _unit(values: Float32) -> Float64:
    flat = values.reshape(-1).astype(np.float64)
    length = np.linalg.norm(flat)
    return np.asarray(flat / length if length > 0 else flat)
