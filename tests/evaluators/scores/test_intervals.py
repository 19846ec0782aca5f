import math
import warnings
from typing import Any

import numpy as np
import pytest

from evaluators.scores.intervals import paired_difference, paired_differences
from evaluators.scores.score import Estimate, Score, TaskScore
from kinship.errors import IncomparableScores


def interval(samples: list[np.ndarray], **options: Any) -> tuple[float, float]:
    """Of the mean of the means."""
    (found,) = paired_differences([[sample / len(samples) for sample in samples]], **options)
    return found.low, found.high


def drawn(seed: int, *sizes: int, shift: float = 0.1) -> list[np.ndarray]:
    """Differences of accuracies: -1, 0 and 1."""
    rng = np.random.default_rng(seed)
    shares = [0.2 - shift / 2, 0.6, 0.2 + shift / 2]
    return [rng.choice([-1.0, 0.0, 1.0], size=size, p=shares) for size in sizes]


def skewed(seed: int, *sizes: int) -> list[np.ndarray]:
    return [np.random.default_rng(seed).lognormal(size=size) for size in sizes]


@pytest.mark.parametrize("samples", [drawn(0, 60), drawn(1, 30, 80), skewed(2, 25), skewed(3, 20, 40, 35)])
@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_are_scipys(samples: list[np.ndarray], method: str) -> None:
    from scipy.stats import bootstrap

    def mean_of_means(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean([part.mean(axis=axis) for part in parts], axis=0)

    theirs = bootstrap(
        samples, mean_of_means, method=method, n_resamples=20_000, batch=2_000, rng=np.random.default_rng(5)
    )
    low, high = interval(samples, method=method, resamples=20_000)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.04 * width)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.04 * width)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    hits = 0
    for seed in range(300):
        low, high = interval(drawn(seed, 60, 100), resamples=1000, seed=seed)
        hits += low <= 0.1 <= high
    assert hits / 300 == pytest.approx(0.95, abs=0.04)  # three standard errors


def test_chunks_do_not_change_what_an_interval_is(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = interval(skewed(0, 50), resamples=1000)
    monkeypatch.setattr("evaluators.scores.intervals.CHUNK", 170)
    assert interval(skewed(0, 50), resamples=1000) == whole


def test_together_or_alone_is_the_same() -> None:
    """Few or many distinct values, one task or two, of as many documents or of others."""
    pairs = [
        drawn(0, 50),
        skewed(1, 50),
        [skewed(2, 50)[0], drawn(3, 70)[0]],
        drawn(4, 70),
        skewed(5, 50),
        drawn(6, 50),
    ]
    assert paired_differences(pairs) == [paired_differences([pair])[0] for pair in pairs]


def score(values: tuple[float, ...], other: tuple[float, ...] = (0.0, 1.0), digest: str = "") -> Score:
    tasks = (("a", values), ("b", other))
    return Score(tuple(TaskScore(name, tuple(range(len(parts))), parts, digest) for name, parts in tasks))


def test_a_comparison_has_the_paired_gain_in_its_interval() -> None:
    rng = np.random.default_rng(0)
    one, two = (tuple(float(x) for x in rng.integers(0, 2, 40)) for _ in range(2))
    found = paired_difference(score(one, (1.0, 1.0, 0.0)), score(two, (0.0, 1.0, 0.0)))
    gain = score(one, (1.0, 1.0, 0.0)).gain_over(score(two, (0.0, 1.0, 0.0)))
    assert (found.value, found.stderr) == pytest.approx(gain)
    assert found.low < found.value < found.high
    assert found.documents == 43
    back = paired_difference(score(two, (0.0, 1.0, 0.0)), score(one, (1.0, 1.0, 0.0)))
    assert back.value == -found.value


def test_the_same_seed_gives_the_same_interval_and_another_seed_nearly_so() -> None:
    one, two = score((1.0, 0.0, 1.0, 1.0) * 10), score((0.0, 0.0, 1.0, 1.0, 1.0) * 8)
    assert paired_difference(one, two) == paired_difference(one, two)
    assert paired_difference(one, two).low == pytest.approx(paired_difference(one, two, seed=1).low, abs=0.03)


def test_verdicts() -> None:
    better, worse = score((1.0,) * 30 + (0.0,)), score((0.0,) * 30 + (1.0,))
    assert paired_difference(better, worse).verdict == "better"
    assert paired_difference(worse, better).verdict == "worse"
    assert paired_difference(better, better).verdict == "undecided"


def test_equal_models_have_an_interval_of_one_point() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = paired_difference(score((1.0, 0.0)), score((1.0, 0.0)))
    assert (found.value, found.stderr, found.low, found.high) == (0.0, 0.0, 0.0, 0.0)


def test_a_single_document_has_no_interval() -> None:
    found = paired_difference(score((1.0,)), score((0.0,)))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.to_dict() == {
        "value": 0.5, "stderr": None, "low": None, "high": None, "level": 0.95, "documents": 3
    }  # fmt: skip
    assert found.verdict == "undecided"


def test_other_documents_and_other_tasks_are_not_compared() -> None:
    with pytest.raises(IncomparableScores, match="documents"):
        paired_difference(score((1.0, 0.0)), score((1.0, 0.0, 0.0)))
    with pytest.raises(IncomparableScores, match="digests"):
        paired_difference(score((1.0, 0.0), digest="1"), score((1.0, 0.0), digest="2"))


def test_partial_scores_are_compared_by_what_was_seen() -> None:
    partial = Score(score((1.0, 0.0)).tasks, partial=Estimate(0.9, 0.1))
    assert paired_difference(partial, score((1.0, 0.0))).value == 0.0


def test_an_interval_of_a_weighted_sum_is_scipys() -> None:
    from scipy.stats import bootstrap

    def fitness(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
        return 3 * parts[0].mean(axis=axis) + 0.5 * parts[1].mean(axis=axis)

    samples = skewed(4, 30, 30)
    theirs = bootstrap(samples, fitness, n_resamples=20_000, batch=2_000, rng=np.random.default_rng(5))
    (found,) = paired_differences([[3 * samples[0], 0.5 * samples[1]]], resamples=20_000)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.04 * width)


def test_a_comparison_by_shares_is_a_difference_in_fitness() -> None:
    from evaluators.scores.aggregates import Aggregate, fitness, shares

    rng = np.random.default_rng(1)
    one, two, low, high = (
        score(*(tuple(float(x) for x in rng.integers(0, 2, size)) for size in (30, 20))) for _ in range(4)
    )
    for aggregate in (Aggregate(kind="normalised", weights={"b": 2.0}), Aggregate(kind="weighted", weights={"b": 2.0})):
        found = paired_difference(one, two, shares=shares(one, aggregate, [low, high]))
        ours, theirs = (fitness(each, aggregate, [low, high]).value for each in (one, two))
        assert found.value == pytest.approx(ours - theirs)
        assert found.low < found.value < found.high
    assert shares(one, Aggregate(kind="worst")) is None
