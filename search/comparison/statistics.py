"""Means over cells and seeds with intervals over both documents and seeds, drawn anew for all models together.

Documents of a cell and seeds are crossed: a document is held out under some seeds, for every model alike. Both are
drawn with replacement, and a value counts as often as its document and its seed were drawn together (the pigeonhole
bootstrap: Owen, Annals of Applied Statistics 1, 2007), which errs on the side of wide intervals.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.scores.intervals import LEVEL
from kinship.arrays import Float64
from search.history.rank_correlation import FEWEST, spearman

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A number, and where it lies with confidence ``LEVEL``; NaN ends where nothing tells."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain data; null for NaN."""
        return {name: None if math.isnan(number) else number for name, number in vars(self).items()}


@dataclass(frozen=True)
class Held:
    """One cell's documents that count: ``documents`` (D,), and of each whether it counts under each seed (S, D)."""

    documents: Sequence[int]
    counts: NDArray[np.bool_]

    @classmethod
    def of(cls, by_seed: Sequence[Sequence[int]]) -> "Held":
        """From the documents that count under each seed."""
        documents = sorted({document for ids in by_seed for document in ids})
        return cls(documents, np.stack([np.isin(documents, ids) for ids in by_seed]))

    def values(self, by_seed: Sequence[Mapping[int, float]]) -> Float64:
        """(S, D), 0 where a document does not count."""
        rows = [[results.get(document, 0.0) for document in self.documents] for results in by_seed]
        return np.where(self.counts, np.array(rows, dtype=np.float64), 0.0)


class Draws:
    """Means of models over some cells: as they are, and under each of the same draws of seeds and documents."""

    def __init__(self, cells: Mapping[str, Held], *, seed: int = 0, resamples: int = RESAMPLES) -> None:
        self._cells = cells
        rng = np.random.default_rng(seed)
        count = len(next(iter(cells.values())).counts)
        self._seeds = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
        self._documents = {
            name: np.random.default_rng([seed, place])
            .multinomial(len(held.documents), np.full(len(held.documents), 1 / len(held.documents)), size=resamples)
            .astype(np.float64)
            for place, (name, held) in enumerate(cells.items())
        }

    def mean(self, values: Mapping[str, Float64], cells: Sequence[str]) -> float:
        """The mean over ``cells`` of the mean over seeds of the mean over documents; ``values``: (S, D) by cell."""
        means = [values[name].sum(axis=1) / self._cells[name].counts.sum(axis=1) for name in cells]
        return float(np.mean(means))

    def drawn(self, values: Mapping[str, Float64], cells: Sequence[str]) -> Float64:
        """The same under each draw, (resamples,)."""
        total = np.zeros(len(self._seeds))
        for name in cells:
            documents, counts = self._documents[name], self._cells[name].counts
            weight = self._seeds * (documents @ counts.T)  # (resamples, S)
            hits = self._seeds * (documents @ values[name].T)
            total += hits.sum(axis=1) / np.maximum(weight.sum(axis=1), 1.0)
        return total / len(cells)


def interval(value: float, drawn: Float64) -> Interval:
    """The percentile interval of draws around ``value``."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def rank_agreement(one: Sequence[float], other: Sequence[float], drawn: tuple[Float64, Float64]) -> Interval | None:
    """Spearman's correlation of two scores of the same models, with the interval that draws give.

    ``drawn``: both scores under the same draws, (models, resamples) each; draws in which all models are alike are left
    out. None for fewer than `FEWEST` models, or where all have one score.
    """
    if len(one) < FEWEST:
        return None
    value = spearman(np.array([one]), np.array([other]))
    if math.isnan(value[0]):
        return None
    among = spearman(drawn[0].T, drawn[1].T)
    among = among[~np.isnan(among)]
    return interval(float(value[0]), among) if len(among) else Interval(float(value[0]), math.nan, math.nan)
