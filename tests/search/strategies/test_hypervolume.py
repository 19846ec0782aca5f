import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from search.strategies.base import Context, Individual, Strategy
from search.strategies.hypervolume import Scales, draw_direction, scalarised
from search.strategies.make import make_strategy
from search.strategies.settings import MergeSettings, StrategySettings
from search.testing.strategy import Bowl, Make, check_strategy, follow


class TwoPeaks(Bowl):
    """Two tasks, each falling with the squared distance from a peak of its own: the front lies between the peaks."""

    def __post_init__(self) -> None:
        random = np.random.default_rng([self.seed, 1])
        self.peaks = dict(zip(("one", "other"), random.dirichlet(np.ones(self.founders), 2) * 1.4, strict=True))
        super().__post_init__()

    def make_individual(self, id: str, generation: int, parents: tuple[str, ...]) -> Individual:
        weights = self.genomes[id].coefficients[:, 1:].mean(axis=0)
        tasks = {name: float(1 - ((weights - peak) ** 2).sum()) for name, peak in self.peaks.items()}
        found = super().make_individual(id, generation, parents)
        return replace(found, score=sum(tasks.values()) / 2, tasks=tasks, errors=dict.fromkeys(tasks, 0.01))


def maker(**settings: Any) -> Make:
    def make(context: Context, seed: int, budget: int | None) -> Strategy:
        return make_strategy(StrategySettings.model_validate(settings), MergeSettings(), context, seed, budget)

    return make


def area(points: Sequence[tuple[float, float]], reference: tuple[float, float] = (0.0, 0.0)) -> float:
    """What points dominate in the plane, by sweeping from the right."""
    total, height = 0.0, reference[1]
    for x, y in sorted(points, reverse=True):
        if x > reference[0] and y > height:
            total += (x - reference[0]) * (y - height)
            height = y
    return total


def covered(make: Make, seed: int, budget: int) -> float:
    family = TwoPeaks(seed)
    follow(make(family.context(), seed, budget), family, budget)
    return area([(each.tasks["one"], each.tasks["other"]) for each in family.individuals.values()])


def test_the_mean_over_directions_is_the_hypervolume() -> None:
    points = np.array([[0.9, 0.2], [0.6, 0.5], [0.1, 0.8], [0.5, 0.4]])
    random = np.random.default_rng(0)
    scales = Scales(np.zeros(2), np.ones(2))
    reached = [scalarised(points, scales, draw_direction(2, random)).max() for _ in range(20_000)]
    constant = math.pi / 4  # of two objectives: pi^(k/2) / (2^k Gamma(k/2 + 1))
    expected = 0.9 * 0.2 + 0.6 * 0.3 + 0.1 * 0.3
    assert area([tuple(point) for point in points]) == pytest.approx(expected)
    error = constant * np.std(reached) / math.sqrt(len(reached))
    assert abs(constant * np.mean(reached) - expected) < 4 * error < 0.01


def test_reference_and_ranges_are_the_founders() -> None:
    scales = Scales.of(np.array([[0.2, 5.0], [0.6, 5.0]]))
    assert scales.reference == pytest.approx([0.16, 4.9])
    assert scales.ranges == pytest.approx([0.4, 1.0])


SEEDS = pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (1, 2, 3))])


@SEEDS
def test_more_is_covered_than_by_random_search(seed: int) -> None:
    looking_at_each = covered(maker(name="bayesian", objectives="tasks"), seed, 12)
    assert looking_at_each > covered(maker(name="random"), seed, 12)


@SEEDS
def test_the_front_is_found_not_only_its_middle(seed: int) -> None:
    """The mean of the tasks is best halfway between the peaks: only who looks at each task finds the ends as well."""
    looking_at_each = covered(maker(name="bayesian", objectives="tasks"), seed, 16)
    assert looking_at_each > covered(maker(name="bayesian"), seed, 16)


def test_a_run_of_one_task_is_like_one_of_its_score() -> None:
    class One(TwoPeaks):
        def make_individual(self, id: str, generation: int, parents: tuple[str, ...]) -> Individual:
            found = super().make_individual(id, generation, parents)
            return replace(found, score=found.tasks["one"], tasks={"one": found.tasks["one"]}, errors={})

    best = []
    for settings in ({"objectives": "tasks"}, {}):
        family = One(3)
        best.append(follow(maker(name="bayesian", **settings)(family.context(), 3, 20), family, 20).best)
    assert best[0] == pytest.approx(best[1], abs=0.02)
    assert best[0] > 0.95


@pytest.mark.soak
def test_the_promises_are_kept() -> None:
    check_strategy(maker(name="bayesian", objectives="tasks", batch=5), lambda: TwoPeaks(2), budget=10)
