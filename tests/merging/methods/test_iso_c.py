"""Iso-C beside the paper's equations in NumPy, and the properties that define it."""

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from kinship.errors import NonFiniteWeights
from merging.methods.iso_c import iso_c
from merging.registry import get_method

SHAPES = [(12, 9), (9, 12), (10, 10), (1, 6)]


def matrices(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def written_out(vectors: np.ndarray) -> np.ndarray:
    u, s, vh = np.linalg.svd(vectors.astype(np.float64).sum(axis=0), full_matrices=False)
    return np.asarray(u @ np.diag(np.full(len(s), s.mean())) @ vh)


def assert_close(got: torch.Tensor, want: np.ndarray | torch.Tensor, tolerance: float = 1e-6) -> None:
    """To ``tolerance`` of the largest entry."""
    wanted = torch.as_tensor(want)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted.double(), rtol=0, atol=tolerance * float(wanted.abs().max()))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_as_the_paper_has_it(shape: tuple[int, int], count: int) -> None:
    vectors = matrices(count, *shape)
    assert_close(iso_c(vectors.clone()), written_out(vectors.numpy()))


def test_lambda_is_the_factor_of_the_result() -> None:
    vectors = matrices(3, 8, 5)
    got = get_method("iso_c").tensor(vectors.clone(), {"lambda": 1.3}, has_base=True)
    assert_close(got, 1.3 * written_out(vectors.numpy()))


def test_all_directions_come_out_equally_strong() -> None:
    vectors = matrices(3, 9, 14)
    got = torch.linalg.svdvals(iso_c(vectors.clone()).double())
    want = torch.linalg.svdvals(vectors.double().sum(dim=0)).mean().expand(9)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


def test_the_nuclear_norm_is_kept() -> None:
    vectors = matrices(2, 9, 14)
    norms = [torch.linalg.matrix_norm(m.double(), "nuc") for m in (iso_c(vectors.clone()), vectors.sum(dim=0))]
    torch.testing.assert_close(norms[0], norms[1], rtol=1e-6, atol=0)


def test_an_isotropic_sum_is_left_as_it_is() -> None:
    turn = torch.from_numpy(ortho_group.rvs(8, random_state=0)).float()
    assert_close(iso_c(torch.stack([2.5 * turn, 0.5 * turn])), 3.0 * turn)


def test_low_rank_sums_stay_of_low_rank() -> None:
    """Two rank-2 adapters: four directions, each as strong as their mean, and nothing elsewhere."""
    factors = (matrices(2, 20, 2), matrices(2, 2, 30, seed=1))
    vectors = factors[0] @ factors[1]
    got = iso_c(vectors.clone())
    u, s, vh = np.linalg.svd(vectors.double().sum(dim=0).numpy(), full_matrices=False)
    assert_close(got, s[:4].mean() * u[:, :4] @ vh[:4])
    assert torch.linalg.matrix_rank(got.double(), rtol=1e-5) == 4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 20])
def test_turning_inputs_and_outputs_turns_the_result(shape: tuple[int, int], rank: int) -> None:
    random = np.random.default_rng(0)
    left, right = (
        torch.from_numpy(np.atleast_2d(ortho_group.rvs(n, random_state=random)))
        if n > 1
        else -torch.ones(1, 1).double()
        for n in shape
    )
    vectors = (matrices(2, shape[0], rank) @ matrices(1, rank, shape[1], seed=1)).double()
    assert_close(iso_c((left @ vectors @ right).float()), left @ iso_c(vectors.float()).double() @ right, 1e-5)


@pytest.mark.parametrize("shape", [*SHAPES, (5,), (2, 3, 4), ()])
def test_the_order_of_models_does_not_matter(shape: tuple[int, ...]) -> None:
    vectors = matrices(3, *shape)
    assert_close(iso_c(vectors[[2, 0, 1]]), iso_c(vectors.clone()))


@pytest.mark.parametrize("factor", [1e-6, 100.0, -2.0])
def test_scaling_all_models_scales_the_result(factor: float) -> None:
    vectors = matrices(3, 9, 12)
    assert_close(iso_c(factor * vectors), factor * iso_c(vectors.clone()))


def test_equal_models_add_up() -> None:
    vector = matrices(1, 6, 7)
    assert_close(iso_c(vector.repeat(3, 1, 1)), 3.0 * iso_c(vector.clone()))


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4), ()])
def test_tensors_that_are_no_matrices_are_averaged(shape: tuple[int, ...]) -> None:
    vectors = matrices(4, *shape)
    got = iso_c(vectors.clone(), lambda_=0.5)
    np.testing.assert_allclose(got.numpy(), 0.5 * vectors.double().mean(dim=0).numpy(), rtol=1e-6, atol=1e-7)


def test_sums_of_zero_stay_zero() -> None:
    assert torch.equal(iso_c(torch.zeros(3, 6, 4)), torch.zeros(6, 4))
    vector = matrices(6, 4)
    assert torch.equal(iso_c(torch.stack([vector, -vector])), torch.zeros(6, 4))


def test_infinity_is_refused() -> None:
    with pytest.raises(NonFiniteWeights):
        iso_c(torch.full((2, 3, 3), torch.inf))
