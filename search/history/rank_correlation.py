"""Spearman's rank correlation over pairs of models, with an interval that knows that pairs share models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kinship.arrays import Float64

LEVEL = 0.95
FEWEST = 3  # pairs of which an order says anything
NEARLY_ONE = 0.999  # Fisher's transform of 1 is infinite


@dataclass(frozen=True)
class RankCorrelation:
    """``value``, from -1 to 1, and an interval of confidence `LEVEL` from ``low`` to ``high``, or None where too few
    models are left when one is taken out; over ``pairs`` pairs of ``models`` models.
    """

    value: float
    low: float | None
    high: float | None
    pairs: int
    models: int

    def __str__(self) -> str:
        """In words.

        >>> print(RankCorrelation(-0.56, -0.95, 0.55, 15, 6))
        -0.56 (95 % interval -0.95 to +0.55, 15 pairs of 6 models)
        """
        over = f"{self.pairs} pairs of {self.models} models"
        interval = (
            "no interval" if self.low is None else f"{100 * LEVEL:.0f} % interval {self.low:+.2f} to {self.high:+.2f}"
        )
        return f"{self.value:+.2f} ({interval}, {over})"


def rank_correlation(one: ArrayLike, other: ArrayLike, pairs: Sequence[tuple[str, str]]) -> RankCorrelation | None:
    """How far two numbers of each pair of models, (n,), put the pairs into the same order.

    Pairs that share a model are not independent, which the usual interval takes them to be: the error is a jackknife
    over models (Snijders & Borgatti, Connections 22, 1999), on Fisher's scale, by Student's t with one degree less
    than there are models. None where there are fewer than `FEWEST` pairs, or all have one value. Cost: models x pairs.
    """
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    value = _spearman(first, second)
    if value is None:
        return None
    models = list(dict.fromkeys(model for pair in pairs for model in pair))
    without = [np.array([model not in pair for pair in pairs]) for model in models]
    left = [found for kept in without if (found := _spearman(first[kept], second[kept])) is not None]
    count = len(models)
    if len(left) < count:
        return RankCorrelation(value, None, None, len(pairs), count)
    from scipy.special import stdtrit

    scale = np.arctanh(np.clip(left, -NEARLY_ONE, NEARLY_ONE))
    error = math.sqrt((count - 2) / (2 * count) * float(((scale - scale.mean()) ** 2).sum()))
    middle = math.atanh(max(-NEARLY_ONE, min(value, NEARLY_ONE)))
    half = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * error
    low, high = min(value, math.tanh(middle - half)), max(value, math.tanh(middle + half))
    return RankCorrelation(value, low, high, len(pairs), count)


def _spearman(one: Float64, other: Float64) -> float | None:
    if len(one) < FEWEST:
        return None
    (value,) = spearman(one[None], other[None])
    return None if math.isnan(value) else float(value)


def spearman(one: Float64, other: Float64) -> Float64:
    """The correlation of the ranks of each row of two tables (rows, n), (rows,); NaN where a row has one value."""
    from scipy.stats import rankdata

    first, second = (rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (one, other))
    size = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Float64 = (first * second).sum(axis=1) / size
    return found
