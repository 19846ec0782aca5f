"""The swarm against the algorithm written out, particle by particle and number by number."""

import math
from typing import Any

import numpy as np
import pytest

from kinship.errors import InvalidConfig
from search.strategies.make import make_strategy
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.swarm import Swarm, begin, toward_others, velocities
from search.testing.strategy import Bowl, follow


def swarm(bowl: Bowl, budget: int | None = None, seed: int = 0, **settings: object) -> Swarm:
    given = StrategySettings.model_validate({"name": "swarm", **settings})
    return Swarm(given, MergeSettings(), bowl.context(), seed, budget)


def written_out(bowl: Bowl, steps: int, seed: int, particles: int, given: dict[str, float]) -> list[list[float]]:
    """The best place of all after each step: no arrays, no shared code but the random numbers."""
    n, lengths = len(bowl.ids), [max(0.5 * 0.95**step, 0.1) for step in range(steps)]
    x = [list(map(float, row)) for row in begin(n, particles, np.random.default_rng([seed, 0]))]
    v = [list(map(float, row)) for row in toward_others(np.array(x), np.random.default_rng([seed, 1]))]

    def score(place: list[float]) -> float:
        genome = bowl.span.founder("base")
        rows = genome.coefficients.copy()
        rows[:, 1:], rows[:, 0] = place, 1.0 - math.fsum(place)
        bowl.genomes["probe"] = type(genome)(rows)
        found = bowl.make_individual("probe", 1, ()).score
        assert found is not None
        return found

    f = [score(place) for place in x]
    p, pf, since = [list(place) for place in x], list(f), [0] * len(x)
    g = max(range(len(x)), key=lambda i: f[i])
    w = min(range(len(x)), key=lambda i: f[i])
    best, best_f, worst, worst_f = x[g], f[g], x[w], f[w]
    course = []
    for step in range(steps):
        r = np.random.default_rng([seed, 2 + step]).random((len(x), 4)).tolist()
        for i in range(len(x)):
            if since[i] >= 3:
                x[i], v[i], since[i] = list(p[i]), [0.0] * n, 0
            a, b, c, d = (
                r[i][0] * given["inertia"], r[i][1] * given["cognitive"],
                r[i][2] * given["social"], r[i][3] * given["repel"],
            )  # fmt: skip
            for j in range(n):
                pull = b * (p[i][j] - x[i][j]) + c * (best[j] - x[i][j]) - d * (worst[j] - x[i][j])
                v[i][j] = (a * v[i][j] + pull) / (a + b + c + d)
        x = [[round(x[i][j] + lengths[step] * v[i][j], 4) for j in range(n)] for i in range(len(x))]
        f = [score(place) for place in x]
        for i, value in enumerate(f):
            since[i] += 1
            if value > pf[i]:
                p[i], pf[i], since[i] = list(x[i]), value, 0
            if value > best_f:
                best, best_f = list(x[i]), value
            if value < worst_f:
                worst, worst_f = list(x[i]), value
        course.append(list(best))
    return course


@pytest.mark.parametrize("particles", [5, 8])
def test_it_goes_where_the_algorithm_written_out_goes(particles: int) -> None:
    bowl = Bowl()
    given = {"inertia": 0.2, "cognitive": 0.3, "social": 0.4, "repel": 0.05}
    strategy = swarm(bowl, budget=1000, seed=4, particles=particles, patience=50, **given)
    expected = written_out(Bowl(), 8, 4, particles, given)
    found = []
    if particles > 5:
        strategy.tell(bowl.evaluate(strategy.ask(), 1))
    for step in range(8):
        strategy.tell(bowl.evaluate(strategy.ask(), 2 + step))
        found.append(strategy.best.place.tolist())
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_velocity_by_hand() -> None:
    one = np.array([[1.0, 0.0]])
    shares = np.array([[0.1, 0.2, 0.3, 0.4]])
    found = velocities(one, np.array([[0.5, 0.5]]), np.array([[0.0, 1.0]]), np.array([2.0, 2.0]), np.zeros(2), shares)
    np.testing.assert_allclose(found, [[0.05 - 0.2 + 0.3 + 0.4, 0.05 + 0.2 + 0.6]])
    assert not velocities(one, one, one, one[0], one[0], np.zeros((1, 4))).any()


def test_more_particles_than_founders_begin_between_two_of_them() -> None:
    places = begin(3, 9, np.random.default_rng(0))
    np.testing.assert_array_equal(places[:3], np.eye(3))
    np.testing.assert_allclose(places.sum(axis=1), 1.0)
    assert ((places[3:] > 0).sum(axis=1) == 2).all()
    ends = places + toward_others(places, np.random.default_rng(0))
    for number, end in enumerate(ends):
        others = np.delete(places, number, axis=0)
        assert np.isclose(others, end).all(axis=1).any()


def test_it_comes_near_the_peak() -> None:
    bowl = Bowl(noise=0.0)
    course = follow(swarm(bowl, budget=60), bowl, 60)
    start = max(bowl.individuals[id].score or 0.0 for id in bowl.ids)
    assert course.best > start + 0.5 * (1.0 - start)


def test_it_ends_when_nothing_was_better_for_a_while() -> None:
    bowl = Bowl()
    strategy = swarm(bowl, budget=1000, patience=2, particles=2)
    best, still, steps = strategy.best.score, 0, 0
    while proposals := strategy.ask():
        assert still < 2
        strategy.tell(bowl.evaluate(proposals, steps + 1))
        still, best, steps = (0 if strategy.best.score > best else still + 1), strategy.best.score, steps + 1
    assert still == 2


def test_who_failed_or_was_stopped_early_is_nobodys_best() -> None:
    bowl = Bowl(failing=3, partial=2)
    strategy = swarm(bowl, budget=30)
    follow(strategy, bowl, 30)
    complete = [one.score for one in bowl.individuals.values() if one.id != "base" and one.complete and one.scored]
    assert strategy.best.score == max(score for score in complete if score is not None)
    assert strategy.worst.score == min(score for score in complete if score is not None)


@pytest.mark.parametrize("name", ["swarm", "average"])
def test_other_methods_than_weights_are_refused(name: Any) -> None:
    with pytest.raises(InvalidConfig, match=name):
        make_strategy(StrategySettings(name=name), MergeSettings(method="ties"), Bowl().context(), 0, None)


def test_the_average_at_eleven_scales() -> None:
    bowl = Bowl(founders=4)
    strategy = make_strategy(StrategySettings(name="average"), MergeSettings(), bowl.context(), 0, None)
    (children,) = follow(strategy, bowl).results
    rows = np.stack([bowl.genomes[child.id].coefficients[0, 1:] for child in children])
    np.testing.assert_allclose(rows, np.repeat(np.linspace(0.5, 3.0, 11)[:, None] / 4, 4, axis=1), atol=1e-4)
