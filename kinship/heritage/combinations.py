"""Merges: is a model, tensor by tensor, a linear combination of a few others? Solved from distances alone.

Coefficients that add up to 1 follow from the distances among the models. Ones that do not are those of an affine
combination in which the origin, a model of zeros, takes part.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float64
from kinship.heritage.distances import Geometry
from kinship.heritage.family import Family
from kinship.heritage.grids import HALF_ULP

# What may be left unexplained of the squared distance to the nearest parent: the Gram pass knows it to about 1e-8 of
# the family's width, and what is no merge leaves hundredths at least.
UNEXPLAINED = 3e-6
# The like of a squared length, where the origin takes part.
LENGTH_KNOWN = 1e-9
# Mean square of rounding, as a part of the squared largest: up to a third, and more where many numbers lie half-way.
ROUNDED = 0.4
# Rounding must not be more than this part of that distance, or anything would be a combination but for rounding.
MOST_ROUNDED = 0.5
# Least eigenvalue of the cosines between parents' differences for which a tensor tells coefficients to 1e-5.
INDEPENDENT = 1e-3
MOST_PARENTS = 5
# More sets of parents than this are tried first on the tensors that differ most: on as few, then on as many as these.
MANY_SETS, TELLING = 64, (2, 6)
FEW_CANDIDATES = 12  # with more, one parent fewer is looked for
# Beyond so many others, only the likeliest are tried as parents: see `_likeliest`.
MOST_CANDIDATES, DAMPED = 24, 1e-5


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


def find_combinations(family: Family) -> list[Combination]:
    """All smallest combinations that give each unexplained model to rounding from 2 to `MOST_PARENTS` plain ones.

    In a set of dependent models each is a combination of the others; which is the child is for others to tell
    (`kinship.heritage.merges`). Cost: C(24, 4) small systems a tensor and dependent model at most; models that no
    combination of all others gives are dismissed at once.
    """
    found = []
    children, plain = family.unexplained, family.plain
    whole = with_origin(family.geometry)
    for child in family.stages.each("Looking for merges", children):
        near = _likeliest(family.geometry, child, [one for one in plain if one != child])
        if len(near) < 2:
            continue
        allowed = _rounded_off(family, child)
        mine: list[Combination] = []
        most = min(MOST_PARENTS - (len(near) > FEW_CANDIDATES), len(near))
        for free in (False, True):
            extra = [_origin(whole)] if free else []
            if not _dependent(whole, child, near + extra, allowed):
                continue
            for size in range(2, most + 1 - free):
                sets = np.array([(*extra, *chosen) for chosen in combinations(near, size)])
                for known in mine:  # with more than is needed, anything is a combination
                    sets = sets[np.isin(sets, known.parents).sum(1) < len(known.parents)]
                mine += _among(whole, child, sets, allowed, free)
        found += mine
    return found + _turned(family, whole, found, children)


def _rounded_off(family: Family, child: int) -> float:
    """Squared length of what rounding to its number format may have taken from a model."""
    half_ulp = HALF_ULP[family.grids[child]]
    return ROUNDED * half_ulp**2 * float(family.geometry.squares[:, child].sum())


def _likeliest(geometry: Geometry, child: int, others: Sequence[int]) -> list[int]:
    """Of ``others``, the nearest first; of many, half the nearest, half those of most weight in the best affine guess.

    The guess is from all of them, at the tensors that differ most: a merge is its parents' however far away they are.
    """
    near = sorted(others, key=lambda one: geometry.total[child, one])
    if len(near) <= MOST_CANDIDATES:
        return near
    # Damped by more than distances are off by: among many there are dependent ones, whose weights would be noise.
    coefficients, _ = _solve(_telling(geometry, child, near), child, np.array([near]), DAMPED)
    weight = np.median(np.abs(coefficients[0]), axis=0)
    half = MOST_CANDIDATES // 2
    heavy = sorted(range(half, len(near)), key=lambda place: -weight[place])[: MOST_CANDIDATES - half]
    return near[:half] + [near[place] for place in sorted(heavy)]


def _telling(geometry: Geometry, child: int, others: Sequence[int], few: int = TELLING[-1]) -> Geometry:
    """Of the ``few`` tensors in which ``child`` differs most from ``others``."""
    places = np.argsort(geometry.apart[:, child][:, list(others)].sum(1))[-few:]
    names = tuple(geometry.names[place] for place in places)
    return Geometry(names, geometry.counts[places], geometry.squares[places], geometry.apart[places])


def _turned(
    family: Family, whole: Geometry, found: Sequence[Combination], children: Sequence[int]
) -> list[Combination]:
    """The combinations ``found`` with each other member for the child, whatever they leave unexplained."""
    known = {(one.child, frozenset(one.parents)) for one in found}
    turned = []
    for one in found:
        for child in set(one.parents) & set(children):
            parents = tuple(model for model in (one.child, *one.parents) if model != child)
            if (child, frozenset(parents)) not in known:
                known.add((child, frozenset(parents)))
                sets = np.array([(_origin(whole), *parents) if one.free else parents])
                turned += list(_among(whole, child, sets, _rounded_off(family, child), one.free, math.inf))
    return turned


def with_origin(geometry: Geometry) -> Geometry:
    """``geometry`` with one more model, whose weights are all zero."""
    tensors, count = geometry.squares.shape
    apart = np.zeros((tensors, count + 1, count + 1))
    apart[:, :count, :count] = geometry.apart
    apart[:, count, :count] = apart[:, :count, count] = geometry.squares
    return Geometry(geometry.names, geometry.counts, np.pad(geometry.squares, ((0, 0), (0, 1))), apart)


def _origin(whole: Geometry) -> int:
    """Place of the model of zeros in what `with_origin` gives."""
    return int(whole.squares.shape[1]) - 1


def solve(geometry: Geometry, one: Combination, groups: Sequence[NDArray[np.bool_]]) -> tuple[Float64, Float64]:
    """Coefficients (G, k) of ``one`` that are alike in the tensors of each of ``groups`` (each (T,)), and what they
    leave (G,) of the squared distances.
    """
    members = [one.child, *one.parents]
    squares, apart = geometry.squares[:, members], geometry.apart[:, members][:, :, members]
    sums = [(squares[tensors].sum(0), apart[tensors].sum(0)) for tensors in groups]
    alike = Geometry(("",) * len(sums), np.zeros(len(sums)), *(np.stack(part) for part in zip(*sums, strict=True)))
    origin = [len(members)] if one.free else []
    sets = np.array([[*origin, *range(1, len(members))]])
    coefficients, left = _solve(with_origin(alike) if one.free else alike, 0, sets)
    return coefficients[0, :, len(origin) :], left[0]


def left_by(geometry: Geometry, one: Combination, coefficients: Float64) -> Float64:
    """Squared distances (T,) that ``coefficients`` (T, k) leave, whatever their sum."""
    members = [one.child, *one.parents]
    signs = np.concatenate([np.full((len(coefficients), 1), -1.0), coefficients], 1)
    # Of sum c_i x_i: with s the sum, s sum c_i |x_i|^2 - sum_{i<j} c_i c_j |x_i - x_j|^2.
    apart = geometry.apart[:, members][:, :, members]
    left: Float64 = signs.sum(1) * (signs * geometry.squares[:, members]).sum(1)
    left -= np.einsum("ti,tij,tj->t", signs, apart, signs) / 2
    left = np.maximum(left, 0.0)
    return left


def _among(
    geometry: Geometry, child: int, sets: np.ndarray, allowed: float, free: bool, part: float = UNEXPLAINED
) -> Iterable[Combination]:
    """Those of ``sets`` (S, k) that explain ``child`` but for ``part``; the first of each is the origin if ``free``."""
    scale = geometry.apart[:, child].T[sets[:, int(free) :]].min(1).sum(1)  # squared distance to the nearest parent
    known = LENGTH_KNOWN * geometry.squares[:, child].sum() if free else 0.0
    most = part * scale + known + np.minimum(allowed, MOST_ROUNDED * scale)
    for tensors in TELLING:
        if len(sets) > MANY_SETS:  # what a few tensors leave unexplained dismisses nearly all
            few = _telling(geometry, child, np.unique(sets[:, int(free) :]).tolist(), tensors)
            likely = _solve(few, child, sets)[1].sum(1) <= 2 * most
            sets, scale, most = sets[likely], scale[likely], most[likely]
    if not len(sets):
        return
    coefficients, left = _solve(geometry, child, sets)
    left = left.sum(1)
    for index in np.flatnonzero(left <= most):
        parents = tuple(map(int, sets[index, int(free) :]))
        unexplained = float(left[index] / max(scale[index], 1e-300))
        settled = _settled(geometry, np.array(parents))
        if not settled.any():  # as of parents that are combinations of each other
            continue
        yield Combination(child, parents, coefficients[index][:, int(free) :], settled, free, unexplained)


def _dependent(geometry: Geometry, child: int, near: Sequence[int], allowed: float) -> bool:
    _, left = _solve(geometry, child, np.array([near]))
    scale = geometry.apart[:, child][:, near].min(1)
    known = LENGTH_KNOWN * geometry.squares[:, child].sum()
    return bool(left.sum() <= 10 * (UNEXPLAINED * scale.sum() + known) + allowed)


def _solve(geometry: Geometry, child: int, sets: np.ndarray, damping: float = 1e-10) -> tuple[Float64, Float64]:
    """Affine coefficients (S, T, k) of parents ``sets`` (S, k), and what is left of the squared distance (S, T)."""
    # From the nearest, so that the fewest digits cancel.
    order = np.argsort(geometry.apart[:, child].sum(0)[sets], axis=1)
    back = np.argsort(order, axis=1)
    sets = np.take_along_axis(sets, order, 1)
    first, rest = sets[:, 0], sets[:, 1:]
    apart = geometry.apart.transpose(1, 2, 0)  # (n, n, T)
    from_first = apart[first[:, None], rest]  # (S, k-1, T)
    gram = (from_first[:, :, None] + from_first[:, None, :] - apart[rest[:, :, None], rest[:, None, :]]) / 2
    start = apart[child, first]  # (S, T)
    target = (start[:, None] + from_first - apart[child][rest]) / 2
    gram, target = gram.transpose(0, 3, 1, 2), target.transpose(0, 2, 1)
    # In units of each difference: the origin is far, models are near.
    unit = np.sqrt(np.where(from_first > 0, from_first, 1.0)).transpose(0, 2, 1)
    scaled = gram / (unit[..., :, None] * unit[..., None, :])
    ridge = np.eye(rest.shape[1]) * (damping + (from_first == 0).transpose(0, 2, 1)[..., None])
    steps = np.linalg.solve(scaled + ridge, (target / unit)[..., None])[..., 0] / unit
    left = start - 2 * (steps * target).sum(2) + (steps * (gram @ steps[..., None])[..., 0]).sum(2)
    coefficients = np.concatenate([1 - steps.sum(2, keepdims=True), steps], 2)
    return np.take_along_axis(coefficients, back[:, None], 2), np.maximum(left, 0.0)


def _settled(geometry: Geometry, parents: np.ndarray) -> NDArray[np.bool_]:
    """(T,) true where the parents' differences from the first are far from dependent, so that coefficients are told."""
    apart = geometry.apart[:, parents][:, :, parents]
    products = (apart[:, :1, 1:] + apart[:, 1:, :1] - apart[:, 1:, 1:]) / 2
    lengths = np.sqrt(np.maximum(np.diagonal(products, axis1=1, axis2=2), 0.0))
    scale = lengths[:, :, None] * lengths[:, None, :]
    cosines = np.where(scale > 0, products / np.where(scale > 0, scale, 1.0), 0.0)
    enough = (lengths**2).min(1) > 1e-12 * geometry.squares[:, parents].max(1)
    return np.asarray(enough & (np.linalg.eigvalsh(cosines).min(1) > INDEPENDENT))
