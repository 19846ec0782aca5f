import numpy as np
import pytest

from kinship.errors import InvalidConfig
from kinship.measures.advice import EVIDENCE, advise
from kinship.measures.matrix import KinshipMatrix


def matrix(metric: str, values: list[list[float]]) -> KinshipMatrix:
    return KinshipMatrix(metric, "base", ("a", "b", "c"), np.array(values))


def test_least_related_come_first_and_pairs_without_a_value_are_left_out() -> None:
    ranking = advise(matrix("pcc", [[1, 0.95, -0.2], [0.95, 1, np.nan], [-0.2, np.nan, 1]]))
    assert [(advice.pair, advice.kinship) for advice in ranking] == [(("a", "c"), -0.2), (("a", "b"), 0.95)]
    assert [advice.relation for advice in ranking] == ["nearly unrelated", "alike"]


def test_a_distance_gives_no_advice() -> None:
    with pytest.raises(InvalidConfig, match="similarity"):
        advise(matrix("euclidean", [[0, 1, 2], [1, 0, 3], [2, 3, 0]]))


def test_the_evidence_is_told_as_weak() -> None:
    assert "weak" in EVIDENCE
    assert "-0.55" in EVIDENCE
