"""P-values of having been trained apart: uniform where units are in any order, tiny where they are not."""

import itertools
import math

import numpy as np
import pytest

from kinship.heritage.independence import (
    MATRICES,
    Excerpts,
    fixed_points_tail,
    independence,
    matched_units,
    nearest_of,
)
from kinship.heritage.sampling import Sample


@pytest.mark.parametrize("count", [1, 4, 6])
def test_tails_are_those_of_all_permutations(count: int) -> None:
    kept = [sum(a == b for a, b in enumerate(order)) for order in itertools.permutations(range(count))]
    for least in range(count + 1):
        assert fixed_points_tail(count, least) == pytest.approx(np.mean(np.array(kept) >= least))


def pairs(random: np.random.Generator, times: int, units: int) -> np.ndarray:
    """Models trained apart that are alike in all but the order of their units: these are the hardest to call apart."""
    found = []
    for seed in range(times):
        one = random.normal(size=(units, 24)).astype(np.float32)
        other = (one + 0.5 * random.normal(size=one.shape))[random.permutation(units)].astype(np.float32)
        found.append(matched_units(one, other, seed))
    return np.array(found)


def test_p_values_are_uniform_under_permutation_symmetry() -> None:
    random, times = np.random.default_rng(0), 400
    kept = pairs(random, times, 20)
    # Discrete p-values are uniform once the step at what was seen is drawn from.
    above = np.array([fixed_points_tail(20, k + 1) if k < 20 else 0.0 for k in kept])
    p = above + random.random(times) * (np.array([fixed_points_tail(20, k) for k in kept]) - above)
    largest = np.abs(np.sort(p) - np.arange(1, times + 1) / times).max()
    assert largest < 1.95 / math.sqrt(times)  # Kolmogorov-Smirnov at 0.001
    plain = np.array([fixed_points_tail(20, k) for k in kept])
    for level in (0.02, 0.1, 0.3, 0.7):  # as told: never smaller than it should be
        assert (plain <= level).mean() <= level + 3 * math.sqrt(level * (1 - level) / times)


def test_equally_good_matchings_do_not_prefer_the_identity() -> None:
    nothing = np.zeros((40, 30), dtype=np.float32)
    assert np.mean([matched_units(nothing, nothing, seed) for seed in range(60)]) < 2


def models(random: np.random.Generator, names: str = "ab") -> list[Sample]:
    """0 and 1 are relatives, 2 is not: its tokens (rows of a) are in the same order, its units are not."""
    samples = []
    for name in names:
        one = random.normal(size=(32, 32))
        apart = (one + 0.3 * random.normal(size=one.shape))[:, random.permutation(32)]
        values = np.array([one, one + 0.5 * random.normal(size=one.shape), apart], dtype=np.float32)
        samples.append(Sample(name, (0, 1, 2), values))
    return samples


def test_relatives_are_told_and_models_that_share_only_an_order_of_tokens_are_not() -> None:
    samples = models(np.random.default_rng(1))
    related, apart = independence(samples, 0, 1), independence(samples, 0, 2)
    assert related is not None
    assert related < 1e-20
    assert apart is not None
    assert apart > 0.1


def test_the_larger_matrix_of_several_does_not_count_alone() -> None:
    random = np.random.default_rng(2)
    noise = [Sample(name, (0, 1), random.normal(size=(2, 32, 32)).astype(np.float32)) for name in "cdef"]
    related = models(random, "a")
    alone, beside = independence(related, 0, 1), independence([*related, *noise], 0, 1)
    assert alone is not None
    assert beside == pytest.approx(5 * alone)


def test_nothing_is_said_where_nothing_is_wide_enough() -> None:
    assert independence([Sample("v", (0, 1), np.ones((2, 1, 600), dtype=np.float32))], 0, 1) is None


def test_who_is_nearest_is_of_the_family_or_else_of_all() -> None:
    samples = models(np.random.default_rng(3))
    correlation = np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]])
    found = nearest_of(samples, correlation, [[0, 1], [2]])
    assert {model: one.model for model, one in found.items()} == {0: 1, 1: 0, 2: 1}
    assert found[0].p < 1e-20
    assert found[2].p > 0.1


def test_excerpts_pass_all_on_and_keep_a_few_of_each_model() -> None:
    values = np.ones((2, 80, 70), dtype=np.float32)
    given = [Sample(str(number), (0, 1), values) for number in range(MATRICES + 5)]
    excerpts = Excerpts(given)
    assert list(excerpts) == given
    assert len(excerpts.kept) == MATRICES
    assert excerpts.kept[0].values.shape == (2, 64, 64)
