"""Bayesian search in the founders' span: a Gaussian process says which merge to try next; no weights are touched."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kinship.arrays import Float64
from search.strategies.base import Context, Individual, Population, Proposal, Role
from search.strategies.hypervolume import Scalarised, Scales
from search.strategies.random_search import UNLIMITED
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.span_points import (
    Acquisition,
    Region,
    average,
    candidates,
    first_new,
    near,
    point_recipe,
    require_weights,
)
from search.strategies.surrogate import Features, Surrogate

NOISE = 0.5  # deviation of a full score about the process, as a share of its standard error: see docs/strategies.md
LED_BY = 5  # of the points that were tried, about which others are looked for
START = ((None, 1.0), (None, 1.6), (3, 1.3), (2, 1.0))  # averages tried first: of how many founders, at what scale


@dataclass(frozen=True)
class _Known:
    point: Float64
    values: Float64  # of the objectives
    noise: Float64  # standard deviations of these


class Bayesian:
    """Four averages first, some of them stretched; then, batch by batch, the points of the highest expected
    improvement; in the last batch of the budget the point expected to be best leads, to be checked.

    Where every task is an objective, it is the hypervolume that is to improve, along a random direction at each
    proposal (`Scalarised`), and there is no best point to be checked.
    A candidate that failed counts as the worst seen; one stopped early as its estimate, with the error of that.
    Cost of a batch: about batch x (m^3 + 2,000 m^2) for m scores, well under a second at m = 100.
    Raises `InvalidConfig` for merges that are no points of the span.
    """

    def __init__(
        self, settings: StrategySettings, merge: MergeSettings, context: Context, seed: int, budget: int | None
    ) -> None:
        require_weights(merge, settings.name)
        self._settings = settings
        self._tasks = sorted(context.base.tasks) if settings.objectives == "tasks" else []
        self._scales = Scales.of(
            np.array([[founder.tasks[task] for task in self._tasks] for founder in context.founders])
        )
        self._region = Region(*settings.scale_range)
        self._seed = seed
        self._budget = UNLIMITED if budget is None else budget
        self._ends = budget is None
        self._founders = [founder.id for founder in context.founders]
        self._features = _features(settings.kernel, context)
        self._ranking = [self._founders.index(id) for id in Population(context.founders).ranked()]
        self._known: list[_Known] = []
        self._learn(np.zeros(len(self._founders)), context.base)
        for point, founder in zip(np.eye(len(self._founders)), context.founders, strict=True):
            self._learn(point, founder)
        self._told = 0
        self._pending: list[tuple[Float64, Proposal]] | None = None

    def ask(self) -> list[Proposal]:
        """See `Strategy.ask`."""
        return [proposal for _, proposal in self._batch()]

    def tell(self, results: Sequence[Individual]) -> None:
        """See `Strategy.tell`."""
        for (point, _), child in zip(self._batch(), results, strict=False):
            self._learn(point, child)
        self._told += len(results)
        self._pending = None

    def _batch(self) -> list[tuple[Float64, Proposal]]:
        """The next batch; found once, since it follows from what was told."""
        if self._pending is None:
            self._pending = self._next()
        return self._pending

    def _next(self) -> list[tuple[Float64, Proposal]]:
        left = self._budget - self._told
        size = min(self._settings.batch, left) if self._ends else self._settings.batch
        if size <= 0:
            return []
        start = self._design()[self._told :][:size]
        batch = [(point, Proposal(point_recipe(point, self._founders), "soup")) for point in start]
        if len(batch) == size:
            return batch
        processes = self._processes()
        for average_tried in start:
            processes = [process.believing(average_tried) for process in processes]
        for number in range(len(start), size):
            random = np.random.default_rng([self._seed, self._told, number])
            final = number == 0 and 0 < left <= self._settings.batch and not self._tasks
            process = Scalarised.along(processes, self._scales, random) if self._tasks else processes[0]
            point = self._choice(process, random, [point for point, _ in batch], final)
            if point is None:
                break
            role: Role = "recheck" if final else "model"
            batch.append((point, Proposal(point_recipe(point, self._founders), role)))
            processes = [process.believing(point) for process in processes]
        return batch

    def _processes(self) -> list[Surrogate]:
        """One of each objective."""
        points = np.stack([entry.point for entry in self._known])
        values = np.stack([entry.values for entry in self._known], axis=1)
        noise = np.stack([entry.noise for entry in self._known], axis=1)
        return [Surrogate.fit(points, *one, self._features) for one in zip(values, noise, strict=True)]

    def _design(self) -> list[Float64]:
        """What is tried before there is anything to learn from: averages of all founders, of the best three, two."""
        count = len(self._ranking)
        found: list[Float64] = []
        for members, scale in START:
            within = min(max(scale, self._region.low), self._region.high)
            point = average(self._ranking[: min(members or count, count)], len(self._founders), within)
            if not near(point, found):
                found.append(point)
        return found

    def _choice(
        self, process: Surrogate | Scalarised, random: np.random.Generator, taken: Sequence[Float64], final: bool
    ) -> Float64 | None:
        """The most promising point that was not tried; by expected score instead, where it is ``final``."""
        acquisition: Acquisition = process.expected if final else process.expected_improvement
        best = process.points[np.argsort(-process.expected(process.points), kind="stable")[:LED_BY]]
        points = candidates(acquisition, self._region, best, random)
        index = first_new(points, acquisition(points), [*(entry.point for entry in self._known), *taken])
        return None if index is None else points[index]

    def _learn(self, point: Float64, individual: Individual) -> None:
        if individual.score is None:
            if self._known:
                worst = np.min([entry.values for entry in self._known], axis=0)
                self._known.append(_Known(point, worst, np.zeros_like(worst)))
            return
        values, errors = [individual.score], [individual.stderr or 0.0]
        if self._tasks:
            values = [individual.tasks[task] for task in self._tasks]
            errors = [individual.errors.get(task, 0.0) for task in self._tasks]
        noise = np.nan_to_num(errors, posinf=0.0) * (NOISE if individual.complete else 1.0)
        self._known.append(_Known(point, np.array(values), noise))


def _features(kernel: str, context: Context) -> Features:
    """What the kernel measures distances by: the coefficients, or the merged models' task vectors.

    Task vectors: by a Cholesky factor of the founders' Gram matrix, so that distances between features are distances
    between weights, in units of the founders' mean distance from the base.
    """
    if kernel == "coefficients":
        return lambda points: points
    products = context.gram()[1:, 1:]
    size = float(np.mean(np.diag(products)))
    factor = np.linalg.cholesky(products / size + 1e-9 * np.eye(len(products)))
    return lambda points: points @ factor
