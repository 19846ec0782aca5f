import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evaluators.scores.aggregates import Aggregate, differences, fitness, gain, pareto_front
from evaluators.scores.intervals import paired_differences
from evaluators.scores.score import Estimate, Score, TaskScore
from kinship.errors import IncomparableScores, InvalidConfig


def score(*means: float, digest: str = "", count: int = 10) -> Score:
    """Task "a", "b", ... of ``count`` documents, of which a share is right."""
    tasks = []
    for name, mean in zip("abcdef", means, strict=False):
        right = round(mean * count)
        tasks.append(TaskScore(name, tuple(range(count)), (1.0,) * right + (0.0,) * (count - right), digest))
    return Score(tuple(tasks))


def stderr(mean: float, count: int = 10) -> float:
    return math.sqrt(mean * (1 - mean) / (count - 1))


UNLIKE = {"a": "acc", "text": "log-likelihood per byte"}


@pytest.mark.parametrize("kind", ["mean", "worst"])
def test_unlike_metrics_have_no_mean(kind: str) -> None:
    aggregate = Aggregate.model_validate({"kind": kind})
    with pytest.raises(InvalidConfig, match=r"a \(acc\), text \(log-likelihood per byte\)") as raised:
        aggregate.require_alike(UNLIKE)
    assert "normalised" in (raised.value.hint or "")
    aggregate.require_alike({"a": "acc", "b": "exact_match", "c": "pass@1"})
    aggregate.require_alike({"a": "log-likelihood per byte", "b": "log-likelihood per byte"})


@pytest.mark.parametrize("kind", [{"kind": "normalised"}, {"kind": "weighted", "weights": {"a": 2}}])
def test_one_may_say_how_unlike_metrics_weigh(kind: dict[str, object]) -> None:
    Aggregate.model_validate(kind).require_alike(UNLIKE)


def test_mean() -> None:
    assert fitness(score(0.2, 0.6), Aggregate()) == score(0.2, 0.6).estimate


def test_weighted() -> None:
    found = fitness(score(0.2, 0.6), Aggregate(kind="weighted", weights={"b": 3.0}))
    assert found.value == pytest.approx((0.2 + 3 * 0.6) / 4)
    assert found.stderr == pytest.approx(math.hypot(stderr(0.2), 3 * stderr(0.6)) / 4)


def test_normalised_by_the_range_of_the_founders() -> None:
    founders = [score(0.2, 0.5), score(0.4, 0.9), score(0.3, 0.7)]
    found = fitness(score(0.5, 0.7), Aggregate(kind="normalised"), founders)
    assert found.value == pytest.approx(((0.5 - 0.2) / 0.2 + (0.7 - 0.5) / 0.4) / 2)
    assert found.stderr == pytest.approx(math.hypot(stderr(0.5) / 0.2, stderr(0.7) / 0.4) / 2)
    best_of_both = fitness(score(0.4, 0.9), Aggregate(kind="normalised"), founders)
    assert best_of_both.value == pytest.approx(1.0)


def test_founders_that_are_all_equal_have_no_range_to_divide_by() -> None:
    found = fitness(score(0.5, 0.7), Aggregate(kind="normalised"), [score(0.3, 0.5), score(0.3, 0.9)])
    assert found.value == pytest.approx((0.2 + 0.5) / 2)


def test_worst_is_the_lowest_task_with_its_own_error() -> None:
    assert fitness(score(0.6, 0.2, 0.9), Aggregate(kind="worst")) == pytest.approx((0.2, stderr(0.2)))


def test_a_partial_score_gives_its_estimate_as_mean_and_what_was_seen_otherwise() -> None:
    partial = Score(score(0.2, 0.6).tasks, partial=Estimate(0.5, 0.01))
    assert fitness(partial, Aggregate()) == Estimate(0.5, 0.01)
    assert fitness(partial, Aggregate(kind="worst")).value == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": {"a": 1.0}}, "takes no weights"),
        ({"kind": "worst", "weights": {"a": 1.0}}, "takes no weights"),
        ({"kind": "weighted"}, "needs the weight"),
        ({"kind": "weighted", "weights": {"a": 0.0}}, "positive"),
        ({"kind": "weighted", "weights": {"a": math.inf}}, "finite"),
        ({"kind": "best"}, "'mean', 'weighted'"),
    ],
)
def test_impossible_settings_are_refused(content: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Aggregate.model_validate(content)


def test_weights_of_unknown_tasks_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="'mathh'") as caught:
        Aggregate(kind="weighted", weights={"mathh": 2.0}).require_tasks(["math", "code"])
    assert "'math'" in caught.value.hint


def test_normalised_needs_founders_of_the_same_tasks() -> None:
    with pytest.raises(InvalidConfig, match="founders"):
        fitness(score(0.5), Aggregate(kind="normalised"))
    with pytest.raises(IncomparableScores):
        fitness(score(0.5, digest="x"), Aggregate(kind="normalised"), [score(0.5, digest="y")])


def test_pareto_front_by_hand() -> None:
    scores = {
        "good at a": {"a": 0.9, "b": 0.1},
        "good at b": {"a": 0.1, "b": 0.9},
        "both": {"a": 0.5, "b": 0.5},
        "worse than both": {"a": 0.5, "b": 0.4},
        "equal to both": {"b": 0.5, "a": 0.5},
    }
    assert pareto_front(scores) == ["good at a", "good at b", "both", "equal to both"]


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_pareto_front_is_what_its_definition_says(points: list[tuple[int, int, int]]) -> None:
    scores = {str(index): dict(zip("abc", point, strict=True)) for index, point in enumerate(points)}
    expected = [
        str(index)
        for index, point in enumerate(points)
        if not any(
            all(theirs >= own for theirs, own in zip(other, point, strict=True)) and other != point for other in points
        )
    ]
    assert pareto_front(scores) == expected


def test_nobody_has_no_front() -> None:
    assert pareto_front({}) == []


KINDS = (
    Aggregate(),
    Aggregate(kind="weighted", weights={"a": 3.0}),
    Aggregate(kind="normalised"),
    Aggregate(kind="worst"),
)


@pytest.mark.parametrize("aggregate", KINDS, ids=lambda aggregate: aggregate.kind)
@pytest.mark.parametrize("other", [(0.3, 0.6), (0.7, 0.4)], ids=["the same is worst", "another is worst"])
def test_a_gain_is_the_difference_in_fitness(aggregate: Aggregate, other: tuple[float, float]) -> None:
    founders = [score(0.2, 0.5), score(0.4, 0.9)]
    mine, theirs = score(0.5, 0.8), score(*other)
    found = gain(mine, theirs, aggregate, founders)
    assert found.value == pytest.approx(
        fitness(mine, aggregate, founders).value - fitness(theirs, aggregate, founders).value
    )
    (compared,) = paired_differences([differences(mine, theirs, aggregate, founders)])
    assert (compared.value, compared.stderr) == pytest.approx(found)
    assert compared.low < compared.value < compared.high


def test_the_error_of_a_gain_is_that_of_repeated_sampling() -> None:
    """Monte Carlo truth: pairs of models that are often right on the same documents."""
    rng, founders = random.Random(1), [score(0.2, 0.5), score(0.7, 0.9)]
    for aggregate in KINDS:
        drawn = []
        for _ in range(800):
            pair = []
            for task, means in (("a", (0.3, 0.4)), ("b", (0.9, 0.8))):
                luck = [rng.random() for _ in range(40)]
                pair.append([TaskScore(task, tuple(range(40)), tuple(float(x < m) for x in luck)) for m in means])
            mine, theirs = (Score(tuple(tasks)) for tasks in zip(*pair, strict=True))
            drawn.append(gain(mine, theirs, aggregate, founders))
        mean = sum(estimate.value for estimate in drawn) / len(drawn)
        spread = math.sqrt(sum((estimate.value - mean) ** 2 for estimate in drawn) / (len(drawn) - 1))
        claimed = math.sqrt(sum(estimate.stderr**2 for estimate in drawn) / len(drawn))
        assert claimed == pytest.approx(spread, rel=0.1)


def test_the_errors_are_those_of_repeated_sampling() -> None:
    """Monte Carlo truth: the spread of each aggregate over fresh samples of documents."""
    rng, founders = random.Random(0), [score(0.2, 0.5), score(0.7, 0.9)]
    for aggregate in (Aggregate(kind="weighted", weights={"a": 2.0}), Aggregate(kind="normalised")):
        drawn = []
        for _ in range(1500):
            counts = [sum(rng.random() < mean for _ in range(40)) / 40 for mean in (0.3, 0.8)]
            drawn.append(fitness(score(*counts, count=40), aggregate, founders))
        mean = sum(estimate.value for estimate in drawn) / len(drawn)
        spread = math.sqrt(sum((estimate.value - mean) ** 2 for estimate in drawn) / (len(drawn) - 1))
        claimed = math.sqrt(sum(estimate.stderr**2 for estimate in drawn) / len(drawn))
        assert claimed == pytest.approx(spread, rel=0.08)
