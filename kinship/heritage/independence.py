"""Were two models trained apart? A p-value by how their hidden units match (Zhu et al., arXiv 2502.12292).

Hidden units may be renumbered without changing what a network computes, and training from a start drawn at random
prefers no order of them. So of models trained apart the best matching of one's units with the other's is any
permutation, each as likely as another; of relatives it is the identity, or nearly. How many units keep their number
tells, exactly: no weights are assumed to be normal or small.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kinship.arrays import Float32, Float64
from kinship.heritage.sampling import Sample

# Of a matrix, at most so many units of either side are matched; of a model, at most so many matrices looked at.
UNITS, MATRICES = 64, 16
# Narrower sides tell too little: their cosines are noise.
NARROW = 16
# Smaller p-values are not told apart.
LEAST = 1e-300


@dataclass(frozen=True)
class Nearest:
    """The place of the ``model`` nearest to another, and the p-value ``p`` of their being independent."""

    model: int
    p: float


def matched_units(one: Float32, other: Float32, seed: int = 0) -> int:
    """How many of ``one``'s units (u, m) are matched with the ``other``'s (u, m) of the same number.

    The matching (u pairs) is that of the largest sum of correlations. Units are shuffled before, by ``seed``, so that
    equally good matchings do not prefer the identity. Cost: u^2 m and u^3.
    """
    from scipy.optimize import linear_sum_assignment

    order = np.random.default_rng(seed).permutation(len(other))
    _, columns = linear_sum_assignment(_centred(one) @ _centred(other)[order].T, maximize=True)
    return int((order[columns] == np.arange(len(one))).sum())


def _centred(values: Float32) -> Float64:
    away = values.astype(np.float64)
    away -= away.mean(0)
    away -= away.mean(1, keepdims=True)
    norms = np.linalg.norm(away, axis=1, keepdims=True)
    return np.asarray(away / np.where(norms > 0, norms, 1.0))


def fixed_points_tail(count: int, least: int) -> float:
    """Chance that a permutation of ``count`` things, all being equally likely, leaves ``least`` or more in place.

    >>> round(fixed_points_tail(3, 1), 4), round(fixed_points_tail(3, 3), 4)  # 4 of 6 leave one, 1 leaves all
    (0.6667, 0.1667)
    """
    tail = 0.0
    for kept in range(count, least - 1, -1):
        moved = sum((-1) ** place / math.factorial(place) for place in range(count - kept + 1))
        tail += math.exp(-math.lgamma(kept + 1)) * moved
    return min(1.0, tail)


def independence(samples: Sequence[Sample], one: int, other: int) -> float | None:
    """The p-value of two models' being independent, by the matrices of ``samples`` that both have; None for none.

    A side of a matrix may be no hidden one (tokens, outputs), or have an order (positions within a head), but then the
    other is: the larger p-value of the two sides counts. Matrices share units, so the least of M is multiplied by M.
    """
    found = []
    for sample in samples:
        if one in sample.owners and other in sample.owners:
            a, b = (sample.of(model)[:UNITS, :UNITS] for model in (one, other))
            if min(a.shape) >= NARROW:
                sides = [fixed_points_tail(len(x), matched_units(x, y)) for x, y in ((a, b), (a.T, b.T))]
                found.append(max(sides))
    return max(min(1.0, len(found) * min(found)), LEAST) if found else None


def nearest_of(samples: Sequence[Sample], correlation: Float64, groups: Sequence[Sequence[int]]) -> dict[int, Nearest]:
    """By model, who is nearest by ``correlation`` (n, n): in its group, or of all where it is alone.

    The p-values are multiplied by the number of others, since the nearest of them was chosen.
    """
    found = {}
    count = len(correlation)
    for members in groups:
        for model in members:
            others = [one for one in (members if len(members) > 1 else range(count)) if one != model]
            for other in sorted(others, key=lambda one: -correlation[model, one])[:1]:
                p = independence(samples, model, other)
                if p is not None:
                    found[model] = Nearest(other, min(1.0, p * (count - 1)))
    return found


class Excerpts:
    """Passes samples on, and keeps of each model's first `MATRICES` matrices what `independence` looks at."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples
        self._seen: dict[int, int] = {}
        self.kept: list[Sample] = []

    def __iter__(self) -> Iterator[Sample]:
        for one in self._samples:
            wanted = any(self._seen.get(owner, 0) < MATRICES for owner in one.owners)
            if wanted and len(one.owners) > 1 and min(one.values.shape[1:]) >= NARROW:
                self.kept.append(Sample(one.name, one.owners, one.values[:, :UNITS, :UNITS].copy()))
                self._seen.update({owner: self._seen.get(owner, 0) + 1 for owner in one.owners})
            yield one
