"""Paired bootstrap intervals: by how much does one model beat another, and how sure is that?

Documents are drawn anew within each task, both models together (BCa: Efron, JASA 82, 1987; several samples as in
`scipy.stats.bootstrap`, which tests compare with). A draw of n documents is a multinomial draw of counts of the
distinct differences, of which an accuracy has three, so ten thousand resamples take milliseconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.scores import Score, mean_with_error

LEVEL, RESAMPLES = 0.95, 10_000
CHUNK = 2_000_000  # counts or documents held at once
MANY_VALUES = 32
Method = Literal["bca", "percentile"]


@dataclass(frozen=True)
class Comparison:
    """One score less another on the same documents: ``value``, its paired ``stderr``, an interval of confidence
    ``level`` from ``low`` to ``high``, and the number of ``documents``.

    ``stderr``, ``low`` and ``high`` are NaN where a task has a single document.
    """

    value: float
    stderr: float
    low: float
    high: float
    level: float
    documents: int

    @property
    def verdict(self) -> Literal["better", "worse", "undecided"]:
        """Which side of zero the whole interval is on."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "undecided"

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain data; null for NaN."""
        facts = {"value": self.value, "stderr": self.stderr, "low": self.low, "high": self.high, "level": self.level}
        return {key: None if math.isnan(fact) else fact for key, fact in facts.items()} | {"documents": self.documents}


def compare(
    score: Score,
    other: Score,
    *,
    shares: Sequence[float] | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    method: Method = "bca",
) -> Comparison:
    """``score`` less ``other``: the mean of the tasks, or their sum by ``shares`` (`evaluators.aggregates.shares`).

    Equal arguments give equal numbers.
    Raises `IncomparableScores` where tasks or documents differ. Of partial scores the documents seen are compared.
    """
    differences = score.differences(other)
    factors = np.array(shares or [1 / len(differences)] * len(differences))
    means, errors = np.transpose([mean_with_error(sample) for sample in differences])
    stderr = float(np.sqrt(((factors * errors) ** 2).sum()))
    low, high = interval(differences, factors, level=level, resamples=resamples, seed=seed, method=method)
    return Comparison(float(factors @ means), stderr, low, high, level, score.count)


def interval(
    samples: Sequence[NDArray[np.float64]],
    factors: NDArray[np.float64],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    method: Method = "bca",
) -> tuple[float, float]:
    """Bootstrap interval of ``sum(factors * means)`` of independent ``samples``.

    Samples without spread have an interval of one point; NaN where a sample has a single value.
    Cost: resamples x distinct values.
    """
    if min(len(sample) for sample in samples) < 2:
        return math.nan, math.nan
    point = float(factors @ [sample.mean() for sample in samples])
    if all(np.ptp(sample) == 0 for sample in samples):
        return point, point
    rng = np.random.default_rng(seed)
    drawn = factors @ [_means(sample, resamples, rng) for sample in samples]
    ends = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        ends = _bca(ends, drawn, point, [share * sample for share, sample in zip(factors, samples, strict=True)])
    low, high = np.quantile(drawn, ends)
    return float(low), float(high)


def _means(sample: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(resamples,) means of as many draws of len(sample) with replacement."""
    values, counts = np.unique(sample, return_counts=True)
    if len(values) > MANY_VALUES:  # where counts of each would cost more than the documents themselves
        chunk = max(1, CHUNK // len(sample))
        sizes = [(min(chunk, resamples - start), len(sample)) for start in range(0, resamples, chunk)]
        return np.concatenate([sample[rng.integers(len(sample), size=size)].mean(axis=1) for size in sizes])
    shares = counts / len(sample)
    chunk = max(1, CHUNK // len(values))
    parts = [
        rng.multinomial(len(sample), shares, size=min(chunk, resamples - start)) @ values
        for start in range(0, resamples, chunk)
    ]
    return np.concatenate(parts) / len(sample)


def _bca(
    ends: NDArray[np.float64], drawn: NDArray[np.float64], point: float, samples: Sequence[NDArray[np.float64]]
) -> NDArray[Any]:
    """The quantiles to take, corrected for bias and acceleration; ``samples`` times their factors."""
    from scipy.special import ndtr, ndtri

    # Draws that equal the point count half, as accuracies repeat. Means are sums in another order, hence isclose.
    ties = np.isclose(drawn, point, rtol=1e-12, atol=1e-12)
    below = ((drawn < point) & ~ties).mean() + ties.mean() / 2
    bias = ndtri(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
    centred = [(sample - sample.mean()) / len(sample) for sample in samples]
    cubes, squares = (sum(float((part**power).sum()) for part in centred) for power in (3, 2))
    acceleration = cubes / (6 * squares**1.5)
    shifted = bias + ndtri(ends)
    return np.asarray(ndtr(bias + shifted / (1 - acceleration * shifted)))
