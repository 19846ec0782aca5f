"""How merge gain goes with kinship in a run, and how related its best models become: the paper's two figures.

Hu et al., arXiv 2410.12613, sections 3.2 and 3.3.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Self

from service.answers.base import Part

if TYPE_CHECKING:
    from kinship.measures.matrix import KinshipMatrix
    from search.ledger.records import Record

LEVEL, QUANTILE = 0.95, 1.959963984540054  # of the interval; of the normal distribution
FEWEST = 3  # pairs, below which nothing is said
MOST_GENERATIONS = 200  # the latest, whose top k are looked at


class Correlation(Part):
    """Pearson's r of kinship of the parents and merge gain, with the least-squares line."""

    n: int
    """Pairs."""
    r: float | None
    """Null for fewer than three pairs, or where one of the two does not vary."""
    low: float | None
    """Where the 95 % interval of r begins, by Fisher's z; null for fewer than four pairs."""
    high: float | None
    """Where it ends."""
    p: float | None
    """How likely an r as far from 0 is among unrelated normal numbers (t test, two-sided)."""
    slope: float | None
    """Gain for a kinship of 1 more."""
    intercept: float | None
    """Gain at kinship 0, on the line."""

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> Self:
        """Of pairs (kinship, gain).

        >>> found = Correlation.of([(0, 0), (1, 1), (2, 1), (3, 3)])
        >>> found.words
        'r = 0.92 (95 % interval -0.34 to 1.00), p = 0.077, n = 4'
        """
        import numpy as np
        from scipy.special import stdtr

        table = np.array(list(pairs), dtype=np.float64).reshape(-1, 2)
        n = len(table)
        nothing = dict.fromkeys(cls.model_fields) | {"n": n}
        if n < FEWEST or np.ptp(table, axis=0).min() == 0:
            return cls.model_validate(nothing)
        middle = table.mean(axis=0)
        x, y = (table - middle).T
        r = float(np.clip(x @ y / math.sqrt((x @ x) * (y @ y)), -1, 1))
        p = 0.0 if abs(r) == 1 else float(2 * stdtr(n - 2, -abs(r) * math.sqrt((n - 2) / (1 - r * r))))
        low, high = interval(r, n)
        slope = float(x @ y / (x @ x))
        intercept = float(middle[1] - slope * middle[0])
        return cls(n=n, r=r, low=low, high=high, p=p, slope=slope, intercept=intercept)

    @property
    def words(self) -> str:
        """One line, or why there is nothing to say."""
        if self.r is None or self.p is None:
            return f"no correlation can be told of {self.n} pairs: it takes {FEWEST} that differ"
        ends = "no interval" if self.low is None else f"95 % interval {self.low:.2f} to {self.high:.2f}"
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.2g}"
        return f"r = {self.r:.2f} ({ends}), {p}, n = {self.n}"


class TopKinship(Part):
    """How related the best are after a generation."""

    generation: int
    """After which."""
    kinship: float | None
    """The mean over the pairs."""
    ids: list[str]
    """The best k so far, best first."""


def interval(r: float, n: int) -> tuple[float | None, float | None]:
    """The 95 % interval of a correlation of ``n`` pairs, by Fisher's z; none for fewer than four."""
    if n < 4:
        return None, None
    if abs(r) == 1:
        return r, r
    half = QUANTILE / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def gains_of(records: Sequence["Record"]) -> list[tuple[float, float]]:
    """Kinship of the parents and merge gain, of everybody who has both."""
    from search.history.export import merge_gain

    by_id: Mapping[str, Record] = {record.id: record for record in records}
    gains = ((record.kinship, merge_gain(record, by_id)) for record in records)
    return [(kinship, gain) for kinship, gain in gains if kinship is not None and gain is not None]


def tops_of(records: Sequence["Record"], k: int) -> dict[int, list[str]]:
    """The best ``k`` after each generation, where there are two or more."""
    from search.ledger.records import Standings

    standings, tops = Standings(), dict[int, list[str]]()
    last = max((record.generation for record in records), default=0)
    for record in sorted(records, key=lambda record: record.generation):
        standings.add(record)
        if record.generation > last - MOST_GENERATIONS:
            tops[record.generation] = standings.top(k)
    return {generation: top for generation, top in tops.items() if len(top) > 1}


def related_tops(tops: Mapping[int, Sequence[str]], matrix: "KinshipMatrix") -> list[TopKinship]:
    """Kinship among each of ``tops``, of those in ``matrix``."""
    found = []
    for generation, ids in tops.items():
        mean = matrix.mean([id for id in ids if id in matrix.ids])
        found.append(TopKinship(generation=generation, kinship=None if math.isnan(mean) else mean, ids=list(ids)))
    return found
