import numpy as np
import pytest
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import squareform

from kinship.errors import InvalidConfig
from kinship.measures.matrix import KinshipMatrix
from kinship.trees.dendrogram import cluster, distances, leaf_order


def matrix_of(values: object, metric: str = "pcc") -> KinshipMatrix:
    array = np.array(values, dtype=np.float64)
    return KinshipMatrix(metric, "base", tuple(f"m{index}" for index in range(len(array))), array)


# Two pairs of sisters: 0 with 2, 1 with 3; model 4 is opposed to all.
FAMILY = [
    [1.0, 0.1, 0.9, 0.2, -0.5],
    [0.1, 1.0, 0.1, 0.8, -0.3],
    [0.9, 0.1, 1.0, 0.2, -0.5],
    [0.2, 0.8, 0.2, 1.0, -0.3],
    [-0.5, -0.3, -0.5, -0.3, 1.0],
]


def test_distances_of_a_similarity_are_one_minus_it() -> None:
    np.testing.assert_allclose(distances(matrix_of(FAMILY)), 1 - np.array(FAMILY))


def test_distances_of_a_distance_are_its_own() -> None:
    lengths = [[0.0, 3.0], [3.0, 0.0]]
    np.testing.assert_array_equal(distances(matrix_of(lengths, "euclidean")), lengths)


def test_cluster_is_average_linkage() -> None:
    tree = cluster(matrix_of(FAMILY))
    want = linkage(squareform(1 - np.array(FAMILY)), "average")
    np.testing.assert_allclose(cophenet(tree), cophenet(want))
    # By hand: sisters at 0.1 and 0.2, the pairs at 1 - (0.1 + 0.2 + 0.1 + 0.2) / 4, the last at 1 + 1.6 / 4.
    np.testing.assert_allclose(tree[:, 2], [0.1, 0.2, 0.85, 1.4])
    np.testing.assert_allclose(tree[:, 3], [2, 2, 4, 5])


def test_leaf_order_keeps_sisters_together() -> None:
    order = leaf_order(matrix_of(FAMILY))
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert abs(order.index(0) - order.index(2)) == 1
    assert abs(order.index(1) - order.index(3)) == 1
    assert 4 in (order[0], order[-1])


@pytest.mark.parametrize("seed", range(5))
def test_leaf_order_is_a_permutation_of_any_models(seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(9, 4))
    assert sorted(leaf_order(matrix_of(np.corrcoef(vectors)))) == list(range(9))


def test_models_without_direction_are_farthest() -> None:
    values = np.array(FAMILY)
    values[1, :] = values[:, 1] = np.nan
    got = distances(matrix_of(values))
    assert np.isfinite(got).all()
    assert got[1].tolist() == [1.5, 0.0, 1.5, 1.5, 1.5]
    tree = cluster(matrix_of(values))
    assert np.isfinite(tree).all()
    assert sorted(leaf_order(matrix_of(values))) == [0, 1, 2, 3, 4]


@pytest.mark.filterwarnings("error")
def test_models_all_without_direction_still_make_a_tree() -> None:
    assert sorted(leaf_order(matrix_of(np.full((3, 3), np.nan)))) == [0, 1, 2]


def test_one_model_has_an_order_but_no_tree() -> None:
    assert leaf_order(matrix_of([[1.0]])) == [0]
    assert leaf_order(matrix_of(np.empty((0, 0)))) == []
    with pytest.raises(InvalidConfig, match="at least two"):
        cluster(matrix_of([[1.0]]))


def test_rounding_below_zero_is_no_distance() -> None:
    values = np.array([[1.0, 1.0 + 1e-15], [1.0 + 1e-15, 1.0]])
    assert distances(matrix_of(values)).min() == 0.0
