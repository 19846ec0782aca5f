"""Means and intervals against scipy and against draws whose truth is known."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from search.comparison.statistics import Draws, Held, interval, rank_agreement


def test_a_mean_is_that_of_cells_seeds_and_documents() -> None:
    held = {"a": Held.of([[0, 1], [1, 2]]), "b": Held.of([[5], [6]])}
    results = [{0: 1.0, 1: 0.0, 2: 9.0, 5: 1.0}, {0: 9.0, 1: 0.0, 2: 1.0, 6: 0.0, 5: 9.0}]
    values = {name: each.values(results) for name, each in held.items()}
    draws = Draws(held)
    assert draws.mean(values, ["a"]) == pytest.approx((0.5 + 0.5) / 2)
    assert draws.mean(values, ["b"]) == pytest.approx(0.5)
    assert draws.mean(values, ["a", "b"]) == pytest.approx(0.5)


def test_one_seed_is_a_bootstrap_of_documents() -> None:
    rng = np.random.default_rng(1)
    sample = rng.random(200)
    held = {"a": Held.of([range(200)])}
    draws = Draws(held, resamples=4000)
    drawn = draws.drawn({"a": sample[None]}, ["a"])
    assert drawn.std() == pytest.approx(sample.std() / math.sqrt(200), rel=0.1)
    assert drawn.mean() == pytest.approx(sample.mean(), abs=0.005)


def test_equal_models_differ_by_nothing_under_any_draw() -> None:
    held = {"a": Held.of([range(0, 20), range(10, 30)])}
    values = {"a": np.where(held["a"].counts, np.random.default_rng(0).random((2, 30)), 0.0)}
    draws = Draws(held)
    assert np.all(draws.drawn(values, ["a"]) - draws.drawn(dict(values), ["a"]) == 0)


def test_intervals_cover_a_difference_that_varies_by_seed_and_document() -> None:
    """Crossed effects of a known size: intervals of 95 % may be too wide, never much too narrow."""
    rng, hits, seeds, documents = np.random.default_rng(2), 0, 6, 60
    held = {"a": Held.of([range(documents)] * seeds)}
    draws = Draws(held, resamples=400)
    for _ in range(100):
        effects = rng.normal(0, 0.3, (seeds, 1)) + rng.normal(0, 1.0, (1, documents))
        values = {"a": 0.2 + effects + rng.normal(0, 0.5, (seeds, documents))}
        found = interval(draws.mean(values, ["a"]), draws.drawn(values, ["a"]))
        hits += found.low <= 0.2 <= found.high
    assert hits >= 88


def test_rank_agreement_is_spearmans() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.random(8), rng.random(8).round(1)
    drawn = rng.random((8, 50)), rng.random((8, 50))
    found = rank_agreement(list(one), list(other), drawn)
    assert found is not None
    assert found.value == pytest.approx(spearmanr(one, other).statistic)
    each = [spearmanr(drawn[0][:, place], drawn[1][:, place]).statistic for place in range(50)]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(each, [0.025, 0.975])))


def test_too_few_or_equal_models_have_no_order() -> None:
    drawn = np.zeros((2, 5)), np.zeros((2, 5))
    assert rank_agreement([1.0, 2.0], [1.0, 2.0], drawn) is None
    level = np.zeros((3, 5)), np.zeros((3, 5))
    assert rank_agreement([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], level) is None
    found = rank_agreement([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], level)
    assert found is not None
    assert found.value == 1.0
    assert math.isnan(found.low)
