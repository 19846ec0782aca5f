"""A model's score on all documents from its results on some, with the help of models whose results are all known.

What is known of other models tells how hard the documents are that a model has not seen yet, and the regression of its
results on theirs tells how alike it is to each of them: the regression estimator of survey sampling (Cochran, Sampling
Techniques, chapter 7; Royall, Biometrika 57, 1970), with a ridge since the known models are few and alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from evaluators.scores.score import Estimate, Results
from kinship.arrays import Float64

Indices = npt.NDArray[np.intp]
PRECISIONS: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)
"""Of the priors of slopes, relative to that of one document's result."""

FREE, FREE_PRECISION = -1, 1e-9
PRIOR = 10.0
TINY = 1e-12
FEWEST = 4
"""Documents of a task to begin with: fewer give no variance to speak of."""

SETTLED = 2.0
"""Observations of the mean variance that each document has besides those of the known models. With one, errors were
understated by a quarter where only settled documents were left unseen."""


@dataclass(frozen=True)
class Panel:
    """The N documents of a split, task by task, and what is known of them.

    tasks: the documents of each task. stratum: (N,) the number of each document's task. weights: (N,) float64, what a
    unit of result on each document adds to the score: the mean of the tasks' means, or ``shares`` of them.
    results: (N, p) float64, those of p known models. unit: (N,) float64, the spread of the results of each document's
    task, so that tasks of unlike metrics can be put together. doubt: (N,) float64, mean 1 in each task: the variance of
    a result that is not known, relative to the task's others. Large where the known models differ.
    """

    tasks: Mapping[str, Sequence[int]]
    stratum: Indices
    weights: Float64
    results: Float64
    unit: Float64
    doubt: Float64

    @classmethod
    def of(
        cls, tasks: Mapping[str, Sequence[int]], known: Mapping[str, Results], shares: Mapping[str, float] | None = None
    ) -> Self:
        """From the full results of the ``known`` models; without any, all documents of a task are alike.

        ``shares``: how much each task counts; default: all the same. KeyError where a known model lacks a document.
        """
        sizes = [len(documents) for documents in tasks.values()]
        parts = [1 / len(sizes) if shares is None else shares[task] for task in tasks]
        results = _matrix(tasks, [known[id] for id in sorted(known)])
        unit, doubt, start = np.ones(len(results)), np.ones(len(results)), 0
        for size in sizes:
            rows = slice(start, start + size)
            unit[rows] = (results[rows].std() if results.size else 0.0) or 1.0
            doubt[rows] = _doubt(results[rows])
            start += size
        return cls(
            dict(tasks),
            np.repeat(np.arange(len(sizes)), sizes),
            np.repeat([part / size for part, size in zip(parts, sizes, strict=True)], sizes),
            results,
            unit,
            doubt,
        )

    @cached_property
    def centre(self) -> Float64:
        """(N,) what a model is expected to do: the mean of the known ones, in units."""
        return self.results.mean(axis=1) / self.unit if self.results.size else np.zeros(len(self.unit))

    @cached_property
    def design(self) -> tuple[Float64, Indices]:
        """(N, q) columns that tell how a model departs from the centre, and the kind (q,) of each.

        Kind 0: shifts of a task. 1: of its doubtful documents. 2: likeness to one of the known models. Where fewer than
        two are known, `FREE` shifts of a task.
        """
        tasks = np.eye(len(self.tasks))[self.stratum]
        if self.results.shape[1] < 2:
            return tasks, np.full(len(self.tasks), FREE)
        known = self.results / self.unit[:, None] - self.centre[:, None]
        columns = [tasks, tasks * self.doubt[:, None], known]
        return np.hstack(columns), np.repeat(np.arange(3), [part.shape[1] for part in columns])

    @cached_property
    def places(self) -> list[tuple[str, int]]:
        """Task and document of each row."""
        return [(task, document) for task, documents in self.tasks.items() for document in documents]

    def shuffled(self, generator: np.random.Generator) -> list[Indices]:
        """The rows of each task in random order, doubtful documents rather earlier.

        The odds are in proportion to the standard deviation of a document's result, so that what is left unseen is what
        is easy to predict (Neyman allocation).
        """
        keys = generator.exponential(size=len(self.weights)) / np.sqrt(self.doubt)
        tasks = [np.flatnonzero(self.stratum == task) for task in range(len(self.tasks))]
        return [rows[np.argsort(keys[rows], kind="stable")] for rows in tasks]

    def by_task(self, rows: Indices) -> dict[str, list[int]]:
        """The documents in ``rows`` by task, in their order; tasks without any are left out."""
        documents: dict[str, list[int]] = {}
        for row in rows:
            task, document = self.places[row]
            documents.setdefault(task, []).append(document)
        return documents

    def values(self, models: Sequence[Results], rows: Indices) -> Float64:
        """Results (n, c) of c models on the documents in ``rows``; KeyError where one lacks a document."""
        return _matrix(self.tasks, models, [self.places[row] for row in rows])

    def scores(self, models: Sequence[Results]) -> Float64:
        """Exact scores (c,) of models whose results are all known."""
        return self.weights @ _matrix(self.tasks, models)


class Extrapolation(NamedTuple):
    """Estimated scores (c,) of c models on all documents, and the covariance (c, c) of their errors."""

    scores: Float64
    covariance: Float64

    def estimate(self, model: int) -> Estimate:
        """The score of one of them with its standard error."""
        return Estimate(float(self.scores[model]), float(np.sqrt(self.covariance[model, model])))


def extrapolate(panel: Panel, rows: Indices, values: Float64) -> Extrapolation:
    """Estimate full scores from ``values`` (n, c) on the documents in ``rows`` (n,), the same for all c models.

    Results are known where seen and predicted elsewhere, by Bayesian linear regression: a model is like the mean of the
    known models, with slopes on each of them, and with shifts in each task, of all documents alike and in proportion
    to their doubt (as a shift of a logit is), averaged over the precisions of these priors by evidence. Errors are
    those of the prediction and of the single results not seen, which vanish when all are seen (the correction for a
    finite population). Cost: some dozens of solves of size p + 2 tasks, and n (p + 2 tasks)² once.
    """
    unseen = np.ones(len(panel.weights), dtype=bool)
    unseen[rows] = False
    share = panel.weights * panel.unit
    centre = panel.centre[:, None]
    observed = panel.weights[rows] @ values
    if not unseen.any():
        return Extrapolation(observed, np.zeros((values.shape[1],) * 2))
    design, kinds = panel.design
    root = np.sqrt(panel.doubt[rows, None])
    left, right = design[rows] / root, (values / panel.unit[rows, None] - centre[rows]) / root
    fits = _regressions(left, right, kinds)
    ahead = share[unseen] @ design[unseen]
    slopes = sum(fit.weight * fit.slopes for fit in fits)
    covariance = np.zeros((values.shape[1],) * 2)
    for fit in fits:
        apart = ahead @ (fit.slopes - slopes)
        covariance += fit.weight * ((ahead @ fit.inverse @ ahead) * fit.pooled + np.outer(apart, apart))
    pooled = sum(fit.weight * fit.pooled for fit in fits)
    inverse = sum(fit.weight * fit.inverse for fit in fits)
    residuals = right - left @ slopes
    freedom = 1 - np.einsum("ij,jk,ik->i", left, inverse, left)
    for task in range(len(panel.tasks)):
        here = panel.stratum[rows] == task
        rest = unseen & (panel.stratum == task)
        # The variance of all tasks counts as much as PRIOR documents of this one.
        own = residuals[here].T @ residuals[here] + PRIOR * pooled
        covariance += (share[rest] ** 2 @ panel.doubt[rest]) / (freedom[here].sum() + PRIOR) * own
    return Extrapolation(observed + share[unseen] @ centre[unseen] + ahead @ slopes, covariance)


def part_of(share: float, rows: Indices) -> int:
    """How many of a task's documents are a ``share`` of them, at least `FEWEST` where there are as many."""
    return min(max(round(share * len(rows)), FEWEST), len(rows))


class _Fit(NamedTuple):
    """A regression under one choice of priors, and how much it counts.

    inverse: (q, q) posterior covariance of the slopes, as a multiple of ``pooled`` (c, c), that of the residuals.
    """

    weight: float
    inverse: Float64
    slopes: Float64
    pooled: Float64


def _regressions(design: Float64, target: Float64, kinds: Indices) -> list[_Fit]:
    """The regressions of target (n, c) on design (n, q) by all priors, weighted by evidence.

    kinds: (q,) of which kind each slope is; slopes of a kind have the same prior. The evidence is that of MacKay
    (Neural Computation 4, 1992) with residual variances profiled out, the mean over the c models: they are much alike,
    and count as one.
    """
    count = len(target)
    gram, moments, squares = design.T @ design, design.T @ target, target.T @ target
    fits = []
    for precisions in product(PRECISIONS, repeat=int(kinds.max()) + 1):
        prior = np.array([*precisions, FREE_PRECISION])[kinds]
        inverse: Float64 = np.linalg.inv(gram + np.diag(prior)).astype(np.float64)
        slopes = inverse @ moments
        pooled = (squares - moments.T @ slopes) / count
        occam = np.linalg.slogdet(inverse)[1] + np.log(prior).sum()
        noise = np.log(np.maximum(np.diag(pooled), TINY)).mean()
        fits.append(_Fit(float(occam - count * noise) / 2, inverse, slopes, pooled))
    top = max(fit.weight for fit in fits)
    total = sum(np.exp(fit.weight - top) for fit in fits)
    return [fit._replace(weight=float(np.exp(fit.weight - top) / total)) for fit in fits]


def _doubt(results: Float64) -> Float64:
    """Variance over models (n,) of the results (n, p) on a task's documents, as multiples of the mean.

    Each document has `SETTLED` observations of the mean variance besides, so that none counts as settled.
    """
    models = results.shape[1]
    variance = results.var(axis=1) if models else np.zeros(len(results))
    if not variance.any():
        return np.ones(len(results))
    doubt: Float64 = (models * variance / variance.mean() + SETTLED) / (models + SETTLED)
    return doubt


def _matrix(
    tasks: Mapping[str, Sequence[int]], models: Sequence[Results], places: Sequence[tuple[str, int]] | None = None
) -> Float64:
    """Results (n, c) of c models on documents, all of them by default."""
    if places is None:
        places = [(task, document) for task, documents in tasks.items() for document in documents]
    columns: list[Any] = [[results[task][document] for task, document in places] for results in models]
    return np.array(columns, dtype=np.float64).reshape(len(models), len(places)).T
