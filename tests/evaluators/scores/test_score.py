import math
import random

import numpy as np
import pytest

from evaluators.scores.score import Estimate, Score, TaskScore, as_dict, average, mean_with_error, require_same_tasks
from kinship.errors import IncomparableScores


def test_mean_and_error_are_those_of_numpy() -> None:
    values = [random.Random(seed).gauss(3, 2) for seed in range(50)]
    value, stderr = mean_with_error(values)
    assert value == pytest.approx(np.mean(values), rel=1e-14)
    assert stderr == pytest.approx(np.std(values, ddof=1) / np.sqrt(50), rel=1e-14)


def test_one_document_has_a_mean_but_no_error() -> None:
    assert mean_with_error([0.25]).value == 0.25
    assert math.isnan(mean_with_error([0.25]).stderr)
    assert as_dict(mean_with_error([0.25])) == {"value": 0.25, "stderr": None}


def test_score_is_the_unweighted_mean_of_its_tasks() -> None:
    large = TaskScore.of("large", {index: float(index % 2) for index in range(100)})
    small = TaskScore.of("small", {3: 1.0, 1: 1.0, 2: 0.0, 0: 1.0})
    score = Score((large, small))
    assert small.documents == (0, 1, 2, 3)
    assert small.values == (1.0, 1.0, 0.0, 1.0)
    assert score.value == pytest.approx((0.5 + 0.75) / 2)  # 104 documents pooled would give 0.51
    errors = [np.std([0, 1] * 50, ddof=1) / 10, np.std([1, 1, 0, 1], ddof=1) / 2]
    assert score.estimate.stderr == pytest.approx(np.sqrt(errors[0] ** 2 + errors[1] ** 2) / 2)
    assert score.count == 104
    assert score.to_dict()["tasks"]["small"]["documents"] == 4


def test_average_of_estimates() -> None:
    assert average([Estimate(1.0, 3.0), Estimate(3.0, 4.0)]) == Estimate(2.0, 2.5)


def test_gain_is_paired_by_document() -> None:
    mine = Score((TaskScore("a", (0, 1, 2), (1.0, 1.0, 0.0)), TaskScore("b", (4, 9), (0.5, 1.0))))
    theirs = Score((TaskScore("a", (0, 1, 2), (1.0, 0.0, 0.0)), TaskScore("b", (4, 9), (0.0, 1.0))))
    # By hand. a: differences 0, 1, 0, mean 1/3, variance 1/3, squared error 1/9. b: 1/2, 0, mean 1/4, variance 1/8,
    # squared error 1/16.
    gain = mine.gain_over(theirs)
    assert gain.value == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert gain.stderr == pytest.approx(math.sqrt(1 / 9 + 1 / 16) / 2)
    assert theirs.gain_over(mine).value == pytest.approx(-gain.value)
    independent = math.hypot(mine.estimate.stderr, theirs.estimate.stderr)
    assert gain.stderr < independent


@pytest.mark.parametrize(
    "other",
    [
        Score((TaskScore("a", (0, 2), (1.0, 0.0)),)),
        Score((TaskScore("b", (0, 1), (1.0, 0.0)),)),
        Score((TaskScore("a", (0, 1), (1.0, 0.0)), TaskScore("b", (0, 1), (1.0, 0.0)))),
    ],
    ids=["other document", "other task", "one task more"],
)
def test_gain_needs_the_same_documents(other: Score) -> None:
    with pytest.raises(IncomparableScores, match="different"):
        Score((TaskScore("a", (0, 1), (1.0, 0.0)),)).gain_over(other)


def test_gain_names_what_differs() -> None:
    one = Score((TaskScore("a", (0, 1), (1.0, 0.0)),))
    with pytest.raises(IncomparableScores, match="different documents of a: 2 and 3, 1 of them in common"):
        one.gain_over(Score((TaskScore("a", (1, 2, 3), (1.0, 0.0, 0.0)),)))


def test_tasks_of_one_name_and_two_digests_are_not_compared() -> None:
    one, other = (Score((TaskScore("a", (0, 1), (1.0, 0.0), digest),)) for digest in ("1" * 64, "2" * 64))
    with pytest.raises(IncomparableScores, match="called a: their digests are 111111111111 and 222222222222"):
        one.gain_over(other)
    with pytest.raises(IncomparableScores, match="111111111111 and not known"):
        require_same_tasks([one, one, Score((TaskScore("a", (0, 1), (1.0, 0.0)),))])
    require_same_tasks([one, one])
    assert one.gain_over(one).value == 0


def test_a_partial_score_is_the_estimate_it_carries() -> None:
    seen = (TaskScore("a", (0, 1), (1.0, 0.0)),)
    partial = Score(seen, partial=Estimate(0.7, 0.1))
    assert not partial.complete
    assert partial.value == 0.7
    assert partial.to_dict()["complete"] is False
    assert partial.to_dict()["tasks"]["a"]["value"] == 0.5
    assert Score(seen).complete
    assert Score(seen).value == 0.5
