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

from evaluators.scores.score import Score, mean_with_error

LEVEL, RESAMPLES = 0.95, 10_000
CHUNK = 2_000_000  # counts or documents held at once
MANY_VALUES = 32
Method = Literal["bca", "percentile"]
Sample = NDArray[np.float64]


@dataclass(frozen=True)
class PairedDifference:
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


def paired_difference(
    score: Score,
    other: Score,
    *,
    shares: Sequence[float] | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    method: Method = "bca",
) -> PairedDifference:
    """``score`` less ``other``: the mean of the tasks, or their sum by ``shares`` (`aggregates.shares`).

    Equal arguments give equal numbers.
    Raises `IncomparableScores` where tasks or documents differ. Of partial scores the documents seen are compared.
    """
    differences = score.differences(other)
    factors = shares or [1 / len(differences)] * len(differences)
    samples = [factor * sample for factor, sample in zip(factors, differences, strict=True)]
    return paired_differences([samples], level=level, resamples=resamples, seed=seed, method=method)[0]


def paired_differences(
    pairs: Sequence[Sequence[Sample]],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    method: Method = "bca",
) -> list[PairedDifference]:
    """A `PairedDifference` of each pair of models, given as samples whose means add up to its difference.

    Pairs with as many documents share their draws, which costs little more than one of them alone.
    Samples without spread have an interval of one point; NaN where a sample has a single value.
    Cost: resamples x documents, and resamples x distinct values of each sample.
    """
    found: dict[int, PairedDifference] = {}
    for sizes in dict.fromkeys(tuple(map(len, samples)) for samples in pairs):
        places = [place for place, samples in enumerate(pairs) if tuple(map(len, samples)) == sizes]
        stacks = [np.stack(samples, axis=1) for samples in zip(*(pairs[place] for place in places), strict=True)]
        means_of = [_means(stack, resamples, np.random.default_rng([seed, at])) for at, stack in enumerate(stacks)]
        drawn = np.sum(means_of, axis=0)
        for column, place in enumerate(places):
            means, errors = np.transpose([mean_with_error(sample) for sample in pairs[place]])
            low, high = _ends(pairs[place], drawn[:, column], level, method)
            stderr = float(np.sqrt((errors**2).sum()))
            found[place] = PairedDifference(float(means.sum()), stderr, low, high, level, sum(sizes))
    return [found[place] for place in range(len(pairs))]


def _ends(samples: Sequence[Sample], drawn: Sample, level: float, method: Method) -> tuple[float, float]:
    if min(len(sample) for sample in samples) < 2:
        return math.nan, math.nan
    point = float(sum(sample.mean() for sample in samples))
    if all(np.ptp(sample) == 0 for sample in samples):
        return point, point
    ends = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        ends = _bca(ends, drawn, point, samples)
    low, high = np.quantile(drawn, ends)
    return _short(low), _short(high)


def _means(samples: Sample, resamples: int, rng: np.random.Generator) -> Sample:
    """(resamples, pairs) means of as many draws of n with replacement of ``samples`` (n, pairs).

    A column of few distinct values is drawn as counts of these; the others together, as counts of the documents.
    """
    count, pairs = samples.shape
    means = np.empty((resamples, pairs))
    distinct = [np.unique(column, return_counts=True) for column in samples.T]
    many = [column for column, (values, _) in enumerate(distinct) if len(values) > MANY_VALUES]
    common, chunk = rng.spawn(1)[0], max(1, CHUNK // count)
    for start in range(0, resamples, chunk) if many else ():
        size = min(chunk, resamples - start)
        rows = common.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        counts = np.bincount(rows.ravel(), minlength=size * count).reshape(size, count)
        means[start : start + size, many] = counts @ samples[:, many] / count
    state = rng.bit_generator.state
    for column in sorted(set(range(pairs)) - set(many)):
        rng.bit_generator.state = state  # each as if it were alone
        values, counts = distinct[column]
        means[:, column] = rng.multinomial(count, counts / count, size=resamples) @ values / count
    return means


def _short(value: float) -> float:
    """What linear algebra gives to the last bits depends on where its operands lie in memory: these are dropped."""
    return float(f"{value:.10g}")


def _bca(ends: Sample, drawn: Sample, point: float, samples: Sequence[Sample]) -> NDArray[Any]:
    """The quantiles to take, corrected for bias and acceleration."""
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
