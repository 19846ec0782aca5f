import math

import numpy as np
import pytest

from kinship.measures.matrix import KinshipMatrix
from search.config import GENERATIONS, StopSettings
from search.ledger.records import Record, Summary
from search.running.stopping import Progress, Spent, reason_to_stop


def matrix(metric: str, ab: float, ac: float, bc: float) -> KinshipMatrix:
    values = np.array([[1.0, ab, ac], [ab, 1.0, bc], [ac, bc, 1.0]])
    return KinshipMatrix(metric, "base", ("a", "b", "c"), values)


NEAR = matrix("pcc", 0.9, 0.8, 0.97)  # mean 0.89


def unasked() -> KinshipMatrix:
    raise AssertionError("kinship is computed only where it decides")


@pytest.mark.parametrize(("generation", "expected"), [(4, None), (5, None), (6, "reached 5 generations")])
def test_generations(generation: int, expected: str | None) -> None:
    assert reason_to_stop(StopSettings(generations=5), Spent(generation, 100, 9999), unasked) == expected


def test_generations_are_limited_only_where_nothing_else_is() -> None:
    beyond = Spent(GENERATIONS + 1, 3, 30, 60.0)
    assert reason_to_stop(StopSettings(), beyond, unasked) == f"reached {GENERATIONS} generations"
    for other in ({"evaluations": 4}, {"documents": 31}, {"hours": 1.0}):
        assert reason_to_stop(StopSettings(**other), beyond, unasked) is None
        assert reason_to_stop(StopSettings(generations=2, **other), beyond, unasked) == "reached 2 generations"


@pytest.mark.parametrize(
    ("evaluations", "expected"), [(6, None), (7, "reached 7 evaluations"), (8, "reached 7 evaluations")]
)
def test_evaluations(evaluations: int, expected: str | None) -> None:
    assert reason_to_stop(StopSettings(evaluations=7), Spent(2, evaluations, 0), unasked) == expected


@pytest.mark.parametrize(("documents", "expected"), [(99, None), (100, "reached 100 documents")])
def test_documents(documents: int, expected: str | None) -> None:
    assert reason_to_stop(StopSettings(documents=100), Spent(2, 7, documents), unasked) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1799.0, None), (1800.0, "reached 0.5 hours"), (None, None)], ids=["in", "over", "replay"]
)
def test_hours_count_but_not_for_what_is_on_record(seconds: float | None, expected: str | None) -> None:
    assert reason_to_stop(StopSettings(hours=0.5), Spent(2, 7, 0, seconds), unasked) == expected


@pytest.mark.parametrize(("threshold", "stops"), [(0.88, True), (0.9, False)])
def test_a_similarity_stops_from_above(threshold: float, stops: bool) -> None:
    reason = reason_to_stop(StopSettings(kinship_above=threshold), Spent(2, 0, 0), lambda: NEAR)
    assert reason == ("mean kinship among the top 3 is 0.890, past 0.88" if stops else None)


@pytest.mark.parametrize(("threshold", "stops"), [(2.1, True), (1.9, False)])
def test_a_distance_stops_from_below(threshold: float, stops: bool) -> None:
    distances = matrix("euclidean", 1.0, 2.0, 3.0)
    reason = reason_to_stop(StopSettings(kinship_above=threshold), Spent(2, 0, 0), lambda: distances)
    assert (reason is not None) is stops


def test_a_kinship_that_is_no_number_does_not_stop() -> None:
    settings, spent = StopSettings(kinship_above=-1.0), Spent(2, 0, 0)
    assert reason_to_stop(settings, spent, lambda: matrix("pcc", math.nan, 0.9, 0.9)) is None
    assert reason_to_stop(settings, spent, lambda: KinshipMatrix("pcc", "base", ("a",), np.ones((1, 1)))) is None


def scored(id: str, generation: int, value: float, twin: str | None = None) -> Record:
    score = Summary(value, 0.1, True, {"documents": 8, "tasks": {}})
    return Record(id, generation, "greedy", (), {}, id, twin=twin, scores={"search": score})


def test_progress_counts_what_was_paid_for_and_knows_who_leads() -> None:
    progress = Progress([scored("base", 0, 0.9), scored("a", 0, 0.5)])
    assert (progress.spent(None), progress.top(2)) == (Spent(1, 0, 16), ["a"])
    failed = Record("1-2", 1, "greedy", ("a",), {}, "x", error="no")
    progress.add([scored("1-1", 1, 0.7), failed, scored("1-3", 1, 0.7, twin="1-1")])
    assert progress.spent(2.0) == Spent(2, 3, 24, 2.0)  # a double costs an evaluation, but no documents
    assert progress.top(2) == ["1-1", "a"]
    assert [record.id for record in progress.told] == ["base", "a", "1-1", "1-2", "1-3"]
