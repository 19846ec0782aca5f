"""Merges: is a model, tensor by tensor, a linear combination of a few others? Solved from distances alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from kinship.gram import Float64
from kinship.heritage.geometry import Geometry

# What may be left unexplained of the squared distance to the nearest parent: the Gram pass knows it to about 1e-8 of
# the family's width, and what is no merge leaves hundredths at least.
UNEXPLAINED = 3e-6
# Mean square of rounding, as a part of the squared largest: a third, and less for most significands.
ROUNDED = 0.25
# Least eigenvalue of the cosines between parents' differences for which a tensor tells coefficients to 1e-5.
INDEPENDENT = 1e-3
MOST_PARENTS = 5
FEW_CANDIDATES = 12  # with more, one parent fewer is looked for
# Beyond so many others, only the nearest are tried as parents.
MOST_CANDIDATES = 24


@dataclass(frozen=True)
class Combination:
    """``child`` is a combination of ``parents`` (places in the family): ``coefficients`` (T, k) on their raw weights.

    free: whether a tensor's coefficients need not add up to 1, as on the arc of SLERP. settled: (T,) whether a tensor
    tells them (parents that agree in it tell nothing). unexplained: the part of the squared distance to the nearest
    parent that is left.
    """

    child: int
    parents: tuple[int, ...]
    coefficients: Float64
    settled: NDArray[np.bool_]
    free: bool
    unexplained: float


def find_combinations(
    geometry: Geometry, children: Sequence[int], candidates: Sequence[int], rounding: Sequence[float]
) -> list[Combination]:
    """All smallest combinations that give each of ``children`` to rounding from 2 to `MOST_PARENTS` ``candidates``.

    rounding: by model, half a unit in the last place of its numbers. In a set of dependent models each is a combination
    of the others; which is the child is for others to tell (`kinship.heritage.merges`). Cost: C(24, 4) small systems a
    tensor and dependent model at most; models that no combination of all others gives are dismissed at once.
    """
    found = []
    for child in children:
        near = sorted((one for one in candidates if one != child), key=lambda one: geometry.apart[:, child, one].sum())
        near = near[:MOST_CANDIDATES]
        allowed = ROUNDED * rounding[child] ** 2 * float(geometry.squares[:, child].sum())
        if len(near) < 2:
            continue
        mine: list[Combination] = []
        arcs = _arcs(geometry, child, near, allowed)
        if not _dependent(geometry, child, near, allowed):
            found += arcs
            continue
        for size in range(2, min(MOST_PARENTS - (len(near) > FEW_CANDIDATES), len(near)) + 1):
            new = _lines(geometry, child, near, size, allowed)
            mine += [one for one in new if not any(set(known.parents) <= set(one.parents) for known in mine)]
        known = {one.parents for one in mine}
        found += mine + [one for one in arcs if one.parents not in known]
    return found


def affine(geometry: Geometry, child: int, parents: Sequence[int]) -> tuple[Float64, Float64]:
    """Coefficients (T, k), adding up to 1, that bring ``parents`` nearest to ``child``, and what is left (T,)."""
    coefficients, left = _solve(geometry, child, np.array([parents]))
    return coefficients[0], left[0]


def arc(geometry: Geometry, child: int, one: int, other: int) -> tuple[Float64, Float64]:
    """Coefficients (T, 2) that bring two models nearest to ``child``, with any sum, and what is left (T,)."""
    start, step = geometry.squares[:, one], geometry.apart[:, one, other]
    across = (geometry.squares[:, other] - start - step) / 2
    target = (geometry.squares[:, child] - start - geometry.apart[:, child, one]) / 2
    along = (geometry.apart[:, child, one] + step - geometry.apart[:, child, other]) / 2
    determinant = start * step - across**2
    safe = determinant > 1e-12 * start * np.maximum(step, 1e-300)
    determinant = np.where(safe, determinant, 1.0)
    scale = np.where(safe, (target * step - along * across) / determinant, 0.0)
    part = np.where(safe, (along * start - target * across) / determinant, 0.0)
    left = geometry.apart[:, child, one] - scale * target - part * along
    return np.stack([1 + scale - part, part], 1), np.maximum(left, 0.0)


def _lines(geometry: Geometry, child: int, near: Sequence[int], size: int, allowed: float) -> Iterable[Combination]:
    sets = np.array(list(combinations(near, size)))
    coefficients, left = _solve(geometry, child, sets)
    scale = geometry.apart[:, child].T[sets].min(1)  # (sets, T): squared distance to the nearest parent
    good = left.sum(1) <= UNEXPLAINED * scale.sum(1) + allowed
    for index in np.flatnonzero(good):
        settled = _settled(geometry, sets[index])
        part = float(left[index].sum() / max(scale[index].sum(), 1e-300))
        yield Combination(child, tuple(map(int, sets[index])), coefficients[index], settled, False, part)


def _arcs(geometry: Geometry, child: int, near: Sequence[int], allowed: float) -> list[Combination]:
    found = []
    for one, other in combinations(near, 2):
        coefficients, left = arc(geometry, child, one, other)
        scale = np.minimum(geometry.apart[:, child, one], geometry.apart[:, child, other])
        if left.sum() <= UNEXPLAINED * scale.sum() + allowed:
            settled = _settled(geometry, np.array([one, other]))
            part = float(left.sum() / max(scale.sum(), 1e-300))
            found.append(Combination(child, (one, other), coefficients, settled, True, part))
    return found


def _dependent(geometry: Geometry, child: int, near: Sequence[int], allowed: float) -> bool:
    _, left = _solve(geometry, child, np.array([near]))
    scale = geometry.apart[:, child][:, near].min(1)
    return bool(left.sum() <= 10 * UNEXPLAINED * scale.sum() + allowed)


def _solve(geometry: Geometry, child: int, sets: np.ndarray) -> tuple[Float64, Float64]:
    """Affine coefficients (S, T, k) of parents ``sets`` (S, k), and what is left of the squared distance (S, T)."""
    first, rest = sets[:, 0], sets[:, 1:]
    apart = geometry.apart.transpose(1, 2, 0)  # (n, n, T)
    from_first = apart[first[:, None], rest]  # (S, k-1, T)
    gram = (from_first[:, :, None] + from_first[:, None, :] - apart[rest[:, :, None], rest[:, None, :]]) / 2
    start = apart[child, first]  # (S, T)
    target = (start[:, None] + from_first - apart[child][rest]) / 2
    gram, target = gram.transpose(0, 3, 1, 2), target.transpose(0, 2, 1)[..., None]
    size = np.trace(gram, axis1=2, axis2=3)[..., None, None]
    unit = np.eye(rest.shape[1])
    steps = np.linalg.solve(gram + unit * (1e-10 * size + (size == 0)), target)
    left = start - 2 * (steps * target).sum((2, 3)) + (steps * (gram @ steps)).sum((2, 3))
    steps = steps[..., 0]
    return np.concatenate([1 - steps.sum(2, keepdims=True), steps], 2), np.maximum(left, 0.0)


def _settled(geometry: Geometry, parents: np.ndarray) -> NDArray[np.bool_]:
    """(T,) true where the parents' differences from the first are far from dependent, so that coefficients are told."""
    apart = geometry.apart[:, parents][:, :, parents]
    products = (apart[:, :1, 1:] + apart[:, 1:, :1] - apart[:, 1:, 1:]) / 2
    lengths = np.sqrt(np.maximum(np.diagonal(products, axis1=1, axis2=2), 0.0))
    scale = lengths[:, :, None] * lengths[:, None, :]
    cosines = np.where(scale > 0, products / np.where(scale > 0, scale, 1.0), 0.0)
    enough = (lengths**2).min(1) > 1e-12 * geometry.squares[:, parents].max(1)
    return np.asarray(enough & (np.linalg.eigvalsh(cosines).min(1) > INDEPENDENT))
