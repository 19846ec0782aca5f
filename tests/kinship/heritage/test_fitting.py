"""The fit of the signals' weights: its gradient against differences, and true trees against what it was given."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from kinship.heritage.descent import options
from kinship.heritage.signals import NAMES, ROOTS
from tests.kinship.heritage.fitting import Case, batches, loss, restricted

TREE = {0: None, 1: 0, 2: 0, 3: 1}


@pytest.fixture
def case() -> Case:
    """Five models: the tree, and 4, which is known to come from 3."""
    random = np.random.default_rng(0)
    values = random.normal(size=(5, 5, len(NAMES)))
    choice = options(values, [0, 1, 2, 3], range(5), [(3, 4)])
    return Case(values, random.normal(size=(5, len(ROOTS))), choice, restricted(choice, TREE, [(3, 4)]))


def test_the_gradient_is_that_of_the_loss(case: Case) -> None:
    random = np.random.default_rng(1)
    flat = random.normal(size=2 * (len(NAMES) + len(ROOTS) + 1) + 2) / 3

    def both(at: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope, lean = loss(batches([case]), at[:-2].reshape(2, -1), at[-2:])
        return value, np.concatenate([slope.ravel(), lean])

    np.testing.assert_allclose(both(flat)[1], approx_fprime(flat, lambda at: both(at)[0]), atol=1e-4)
    assert both(flat)[0] > 0  # the true tree is one of all


def test_the_true_tree_is_the_only_one_left(case: Case) -> None:
    assert {child: np.flatnonzero(case.true.edges[:, child]).tolist() for child in range(4)} == {
        child: [] if parent is None else [parent] for child, parent in TREE.items()
    }
    assert case.true.roots.tolist() == [True, False, False, False, False]


def test_what_certain_edges_contradict_is_left_open() -> None:
    values = np.ones((3, 3, len(NAMES)))
    choice = options(values, [0, 1], range(3), [(0, 2)])
    left = restricted(choice, {0: 2, 1: 2}, [(0, 2)])
    assert np.array_equal(left.edges[:, 0], choice.edges[:, 0])
    assert left.roots[0]
    assert np.flatnonzero(left.edges[:, 1]).tolist() == [2]
