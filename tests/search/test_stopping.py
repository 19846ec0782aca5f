import math

import numpy as np
import pytest

from kinship.matrix import KinshipMatrix
from search.config import StopSettings
from search.stopping import reason_to_stop

TOP = ["a", "b", "c"]


def matrix(metric: str, ab: float, ac: float, bc: float) -> KinshipMatrix:
    values = np.array([[1.0, ab, ac], [ab, 1.0, bc], [ac, bc, 1.0]])
    return KinshipMatrix(metric, "base", tuple(TOP), values)


NEAR = matrix("pcc", 0.9, 0.8, 0.97)  # mean 0.89


@pytest.mark.parametrize(("generation", "expected"), [(4, None), (5, None), (6, "reached 5 generations")])
def test_generations(generation: int, expected: str | None) -> None:
    assert reason_to_stop(StopSettings(generations=5), generation, 100, TOP, NEAR) == expected


@pytest.mark.parametrize(
    ("evaluations", "expected"), [(6, None), (7, "reached 7 evaluations"), (8, "reached 7 evaluations")]
)
def test_evaluations(evaluations: int, expected: str | None) -> None:
    assert reason_to_stop(StopSettings(evaluations=7), 2, evaluations, TOP, NEAR) == expected


@pytest.mark.parametrize(("threshold", "stops"), [(0.88, True), (0.9, False)])
def test_a_similarity_stops_from_above(threshold: float, stops: bool) -> None:
    reason = reason_to_stop(StopSettings(kinship_above=threshold), 2, 0, TOP, NEAR)
    assert reason == ("mean kinship among the top 3 is 0.890, past 0.88" if stops else None)


@pytest.mark.parametrize(("threshold", "stops"), [(2.1, True), (1.9, False)])
def test_a_distance_stops_from_below(threshold: float, stops: bool) -> None:
    distances = matrix("euclidean", 1.0, 2.0, 3.0)
    assert (reason_to_stop(StopSettings(kinship_above=threshold), 2, 0, TOP, distances) is not None) is stops


def test_only_the_top_counts() -> None:
    assert reason_to_stop(StopSettings(kinship_above=0.95), 2, 0, ["b", "c"], NEAR) is not None
    assert reason_to_stop(StopSettings(kinship_above=0.95), 2, 0, ["a", "b"], NEAR) is None


def test_a_kinship_that_is_no_number_does_not_stop() -> None:
    assert reason_to_stop(StopSettings(kinship_above=-1.0), 2, 0, TOP, matrix("pcc", math.nan, 0.9, 0.9)) is None
    assert reason_to_stop(StopSettings(kinship_above=-1.0), 2, 0, ["a"], NEAR) is None
