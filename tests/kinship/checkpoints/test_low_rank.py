import numpy as np
import pytest

from kinship.checkpoints.low_rank import LowRank, Start, since_start


@pytest.mark.parametrize("turned", [False, True])
def test_a_start_of_another_machine_is_nothing_whatever_its_signs(turned: bool) -> None:
    weight = np.random.default_rng(0).normal(size=(6, 9)).astype(np.float32)
    u, s, v = np.linalg.svd((weight.T if turned else weight).astype(np.float64), full_matrices=False)
    signs, roots = np.array([1, -1, 1]), np.sqrt(s[:3] / 0.5)
    left, right = (u[:, :3] * roots * signs).astype(np.float32), ((v[:3].T * roots * signs).T).astype(np.float32)
    start = Start("pissa", turned)
    fresh = LowRank(right.T, left.T, 0.5) if turned else LowRank(left, right, 0.5)
    assert since_start(fresh, start, weight).norm() == 0.0
    moved = LowRank(fresh.left + np.float32(1e-3), fresh.right, 0.5)
    wanted = 0.5 * np.full_like(fresh.left, 1e-3, dtype=np.float64) @ fresh.right
    np.testing.assert_allclose(since_start(moved, start, weight).dense(), wanted, rtol=0, atol=2e-6)


def test_norm_is_that_of_the_matrix() -> None:
    change = LowRank(np.float32([[1, 0], [2, 1], [0, 3]]), np.float32([[1, -1], [0.5, 2]]), -0.25)
    assert change.norm() == pytest.approx(float(np.linalg.norm(change.dense().astype(np.float64))))
