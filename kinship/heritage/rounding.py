"""Who was computed from whom, from rounding: of A, B and (A + B) / 2 the last is what rounding the others' sum gives.

Every linear relation among models holds for each of them but for rounding errors; only the one that was computed has
errors of its own last place. So each is described from the others, and the shortest description of all wins (minimum
description length; Rissanen, Automatica 14, 1978): the integers by which its numbers are off, in units in their last
place, cost nothing where they are all zero, and the others' cost the more the farther they are from their relatives.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float32, Float64
from kinship.heritage.combinations import Combination
from kinship.heritage.grids import last_place, to_grid
from kinship.heritage.sampling import Sample, matrices_of

# Numbers tell where the models are this many units in the last place apart. Fewer of a matrix tell nothing; of each, at
# most so many are read, and about so many of all.
APART, FEWEST, MOST, IN_ALL = 16.0, 64, 4096, 1 << 15
# A number is explained within so many units in the last place of the largest term, by grid; so many must be.
OFF, EXPLAINED = {"float32": 3.0, "float16": 1.0, "bfloat16": 1.0}, 0.97
# Coefficients this near to hundredths or simple fractions, by grid, may be them: by the errors of least squares.
SNAP, DENOMINATORS = {"float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}, (100, 3, 6, 7, 8, 9, 11, 12)
# Steps towards coefficients that rounding allows, each so many times as far as least squares has it.
ROUNDS, RELAXED = 60, 1.8


@dataclass(frozen=True)
class Rounding:
    """How a combination holds number by number.

    nats: mean length of the description of one number of the child, less what it would take without the relation;
    comparable among members of one relation: shorter is likelier. exact: the part of its numbers that come out to the
    last bit. explained: the part that is right but for rounding. coefficients: (k,) those that are alike in all
    matrices, by least squares over the numbers; None where they are not.
    """

    nats: float
    exact: float
    explained: float
    coefficients: tuple[float, ...] | None


def rounding(one: Combination, samples: Sequence[Sample], grid: str) -> Rounding | None:
    """Compute the child of ``one`` anew from its parents' sampled numbers; None where no sampled matrix tells.

    grid: the child's number format. Matrices in which two of them are equal do not tell. One set of coefficients for
    all matrices is tried beside those of each; sums are tried in double precision and, in single, as merge tools do.
    """
    telling = matrices_of(samples, (one.child, *one.parents))
    most = min(MOST, max(4 * FEWEST, IN_ALL // max(len(telling), 1)))
    parts = [_numbers(sample, one, grid, most) for sample in telling]
    parts = [part for part in parts if part.shape[1] >= FEWEST and _all_differ(part)]
    if not parts:
        return None
    fits = [_fit(part, one.free, grid) for part in parts]
    told = [_Part.of(part, grid) for part in parts]
    found = _describe(told, fits, grid, None)
    alike = _fit(np.concatenate(parts, 1), one.free, grid)
    for guess in [alike, *_simple(alike, SNAP[grid])]:
        single = _describe(told, [guess] * len(told), grid, tuple(map(float, guess)))
        found = single if single.nats <= found.nats else found
    return found


def _numbers(sample: Sample, one: Combination, grid: str, most: int) -> Float32:
    """(1 + k, numbers) of child and parents, where they are far enough apart to tell; about ``most`` of them."""
    values = np.stack([sample.of(model).reshape(-1) for model in (one.child, *one.parents)])
    wide = np.ptp(values, axis=0) > (APART if grid == "float32" else 0.5) * last_place(np.abs(values).max(0), grid)
    values = values[:, wide]
    return values[:, :: max(1, values.shape[1] // most)]


def _all_differ(rows: Float32) -> bool:
    """Whether no two of ``rows`` (1 + k, numbers) hold the same."""
    return not any(np.array_equal(one, other) for one, other in combinations(rows, 2))


def _fit(values: Float32, free: bool, grid: str) -> Float64:
    """Coefficients (k,) of the parents, the rows of ``values`` after the first, by least squares.

    On coarse grids rounding depends on the terms and biases them. So they are moved until as many sums as can be are
    within half a unit of the child's number: least squares to the nearest point there, again and again.
    """
    first = values[1].astype(np.float64)
    terms = np.concatenate([first[None], values[2:] - first] if free else [values[2:] - first])
    size = np.sqrt(np.square(terms).mean(1, keepdims=True))
    size[size == 0] = 1.0
    terms /= size
    inverse = np.linalg.pinv(terms @ terms.T, hermitian=True) @ terms
    wanted = values[0] - first
    steps = inverse @ wanted
    if grid != "float32":
        half = last_place(values[0], grid) / 2
        least, most = wanted - half, wanted + half
        for _ in range(ROUNDS):
            sums = steps @ terms
            off = np.clip(sums, least, most) - sums
            if not off.any():
                break
            steps = steps + RELAXED * (inverse @ off)
    steps /= size[:, 0]
    if free:
        return np.concatenate([[1 + steps[0] - steps[1:].sum()], steps[1:]])
    return np.concatenate([[1 - steps.sum()], steps])


def _simple(fit: Float64, within: float) -> Iterator[Float64]:
    """Coefficients as people write them that ``fit`` may be, with the same sum where that is 1."""
    for part in DENOMINATORS:
        near = np.round(fit * part) / part
        if np.abs(near - fit).max() < within and (abs(fit.sum() - 1) > 1e-9 or abs(near.sum() - 1) < 1e-9):
            yield near


class _Part(NamedTuple):
    """``values`` (1 + k, numbers) of child and parents in one matrix, the ``unit`` in the last place of the child's
    (numbers,), and nats of one number of the child without the relation: it lies anywhere about its nearest relative.
    """

    values: Float32
    unit: Float64
    alone: float

    @classmethod
    def of(cls, values: Float32, grid: str) -> "_Part":
        unit = last_place(values[0], grid)
        apart = values[1:].astype(np.float64) - values[0]
        near = max(math.sqrt(min(float(row @ row) for row in apart) / len(unit)), float(unit.mean()))
        return cls(values, unit, math.log(near) - float(np.log(unit).mean()))


def _describe(parts: Sequence[_Part], fits: Sequence[Float64], grid: str, alike: tuple[float, ...] | None) -> Rounding:
    """With sums in the way that describes the largest part in the fewest bits: one tool made all of a model."""
    if grid == "float32":
        fits = [next(_simple(fit, SNAP[grid]), fit) for fit in fits]
    largest = max(range(len(parts)), key=lambda place: parts[place].values.shape[1])
    ways = _ways(fits[largest], alike is not None) if grid == "float32" else [None]
    way = min(ways, key=lambda way: _length(_off(parts[largest], fits[largest], way, grid)))
    nats, exact, explained, count = 0.0, 0, 0, 0
    for part, fit in zip(parts, fits, strict=True):
        off = _off(part, fit, way, grid)
        nats += len(off) * (_length(off) - part.alone)
        exact += len(off) - int(np.count_nonzero(off))
        widest = np.abs(part.values) * np.abs([1.0, *fit])[:, None]
        within = np.abs(off) * part.unit <= OFF[grid] * last_place(widest.max(0).astype(np.float32), grid)
        explained += int(np.count_nonzero(within))
        count += len(off)
    return Rounding(nats / count, exact / count, explained / count, alike)


class _Way(NamedTuple):
    """How tools add up in single precision: terms in ``order``, or changes from ``base``, at last times ``scale``."""

    order: tuple[int, ...]
    base: int | None = None
    scale: float = 1.0


def _ways(fit: Float64, alike: bool) -> list[_Way | None]:
    """None is the exact sum, rounded once. A scale of their own have only coefficients that are ``alike`` in all."""
    places = range(len(fit))
    ways: list[_Way | None] = [None, *(_Way(order) for order in _orders(places))]
    if abs(fit.sum() - 1) < SNAP["float32"]:
        for base in places:
            others = [place for place in places if place != base]
            scales = _scales(fit[others]) if alike else [1.0]
            ways += [_Way(order, base, scale) for scale, order in product(scales, _orders(others))]
    return ways


def _orders(places: Sequence[int]) -> list[tuple[int, ...]]:
    """Orders to add up in: of three terms, which is the last decides; of more, not all are tried."""
    ends = places if len(places) > 2 else places[-1:]
    return [(*(place for place in places if place != last), last) for last in ends]


def _scales(weights: Float64) -> list[float]:
    """Lambdas that weighted changes may have been multiplied by: 1, and tenths that leave weights of tenths."""
    tenths = [part / 10 for part in range(1, 21) if part != 10]
    return [1.0, *(one for one in tenths if np.abs(weights / one * 10 - np.round(weights / one * 10)).max() < 1e-6)]


def _off(part: _Part, fit: Float64, way: _Way | None, grid: str) -> Float64:
    """By how many units in the last place the child of ``part`` is off from its parents' sum."""
    child, parents = part.values[0], part.values[1:]
    if way is None:
        whole = (fit @ parents.astype(np.float64)).astype(np.float32)
        found = whole if grid == "float32" else to_grid(whole, grid)
    elif way.base is None:
        found = _running([np.float32(fit[place]) * parents[place] for place in way.order])
    else:
        start = parents[way.base]
        change = _running([np.float32(fit[place] / way.scale) * (parents[place] - start) for place in way.order])
        found = start + np.float32(way.scale) * change
    off: Float64 = np.rint((child - found.astype(np.float64)) / part.unit)
    return off


def _running(terms: Sequence[Float32]) -> Float32:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _length(off: NDArray[np.float64]) -> float:
    """Nats to describe one of these integers: whether it is zero, else its sign and, geometrically, its size."""
    sizes = np.abs(off[off != 0])
    other = len(sizes) / len(off)
    if not len(sizes):
        return 0.0
    stop = 1 / float(sizes.mean())
    size = 0.0 if stop == 1 else -math.log(stop) - (1 - stop) / stop * math.log(1 - stop)
    return _entropy(other) + other * (math.log(2) + size)


def _entropy(share: float) -> float:
    return -sum(part * math.log(part) for part in (share, 1 - share) if part > 0)
