"""KnOTS-TIES beside the paper's steps in NumPy, whatever the signs of the singular vectors there."""

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from merging.methods.knots_ties import knots_ties
from merging.registry import get_method

Array = np.ndarray
SHAPES = [(12, 9), (9, 12), (10, 10), (40, 4)]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def adapters(count: int, rows: int, columns: int, rank: int, seed: int = 0) -> torch.Tensor:
    return numbers(count, rows, rank, seed=seed) @ numbers(count, rank, columns, seed=seed + 1)


def ties(vectors: Array, density: list[float]) -> Array:
    """Trim, elect, disjoint mean: entry by entry."""
    trimmed = vectors.reshape(len(vectors), -1).copy()
    for row, share in zip(trimmed, density, strict=True):
        kept = int(share * row.size)
        row[np.argsort(np.abs(row))[: row.size - kept]] = 0.0
    merged = []
    for column in trimmed.T:
        agreeing = [value for value in column if value * column.sum() > 0]
        merged.append(np.mean(agreeing) if agreeing else 0.0)
    return np.array(merged).reshape(vectors.shape[1:])


def written_out(vectors: torch.Tensor, density: list[float], seed: int = 0) -> Array:
    """SVD of the updates side by side, singular vectors with random signs, TIES on S V_i^T, back by U."""
    arrays = vectors.double().numpy()
    u, s, vh = np.linalg.svd(np.concatenate(arrays, axis=1), full_matrices=False)
    rank = int((s > 1e-5 * s[0]).sum())
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=rank)
    u, vh = u[:, :rank] * signs, signs[:, None] * vh[:rank]
    parts = np.stack(np.split(np.diag(s[:rank]) @ vh, len(arrays), axis=1))
    return np.asarray(u @ ties(parts, density))


def assert_close(got: torch.Tensor, want: Array | torch.Tensor, tolerance: float = 1e-6) -> None:
    """To ``tolerance`` of the largest entry."""
    wanted = torch.as_tensor(want)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted.double(), rtol=0, atol=tolerance * float(wanted.abs().max()))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [[1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [0.2, 0.9, 1.0]])
def test_as_the_paper_has_it(shape: tuple[int, int], density: list[float]) -> None:
    vectors = numbers(3, *shape)
    got = knots_ties(vectors.clone(), density=density)
    for seed in range(3):
        assert_close(got, written_out(vectors, density, seed))


@pytest.mark.parametrize("density", [1.0, 0.4])
def test_adapters(density: float) -> None:
    vectors = adapters(3, 20, 30, rank=2)
    got = knots_ties(vectors.clone(), density=[density] * 3)
    assert_close(got, written_out(vectors, [density] * 3))
    assert torch.linalg.matrix_rank(got.double(), rtol=1e-5) <= 6


def test_lambda_is_the_factor_of_the_result() -> None:
    vectors = numbers(3, 8, 5)
    values = {"density": [0.5] * 3, "lambda": 0.3}
    got = get_method("knots_ties").tensor(vectors.clone(), values, has_base=True)
    assert_close(got, 0.3 * written_out(vectors, [0.5] * 3))


@pytest.mark.parametrize("shape", SHAPES)
def test_turning_the_outputs_turns_the_result(shape: tuple[int, int]) -> None:
    """U turns along and the aligned parts stay, so no choice of U may show."""
    turn = torch.from_numpy(ortho_group.rvs(shape[0], random_state=0))
    for vectors in (numbers(3, *shape).double(), adapters(3, *shape, rank=1).double()):
        got = knots_ties((turn @ vectors).float(), density=[0.7] * 3)
        assert_close(got, turn @ knots_ties(vectors.float(), density=[0.7] * 3).double(), tolerance=1e-5)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_equal_models_are_left_as_they_are(shape: tuple[int, int], count: int) -> None:
    vector = numbers(1, *shape)
    assert_close(knots_ties(vector.repeat(count, 1, 1), density=[1.0] * count), vector[0])


def test_updates_of_different_outputs_are_added() -> None:
    """Each direction belongs to one model, whose entries there are the only ones to be averaged."""
    vectors = torch.zeros(2, 8, 5)
    vectors[0, :4], vectors[1, 4:] = numbers(4, 5), numbers(4, 5, seed=1)
    assert_close(knots_ties(vectors.clone(), density=[1.0, 1.0]), vectors.sum(dim=0))


def test_opposite_updates_cancel() -> None:
    """Whatever the signs of U, no sign may be elected."""
    vector = numbers(6, 4)
    assert torch.equal(knots_ties(torch.stack([vector, -vector]), density=[1.0, 1.0]), torch.zeros(6, 4))


@pytest.mark.parametrize("shape", [*SHAPES, (5,), (2, 3, 4), ()])
def test_the_order_of_models_does_not_matter(shape: tuple[int, ...]) -> None:
    vectors = numbers(3, *shape)
    want = knots_ties(vectors.clone(), density=[0.4, 0.6, 1.0])
    assert_close(knots_ties(vectors[[2, 0, 1]], density=[1.0, 0.4, 0.6]), want)


@pytest.mark.parametrize("factor", [1e-6, 100.0, -2.0])
def test_scaling_all_models_scales_the_result(factor: float) -> None:
    vectors = numbers(3, 9, 12)
    want = factor * knots_ties(vectors.clone(), density=[0.5] * 3)
    assert_close(knots_ties(factor * vectors, density=[0.5] * 3), want)


@pytest.mark.parametrize("shape", [(50,), (4, 5, 6)])
def test_tensors_that_are_no_matrices_go_through_ties(shape: tuple[int, ...]) -> None:
    vectors = numbers(3, *shape)
    got = knots_ties(vectors.clone(), density=[0.5] * 3, lambda_=2.0)
    assert_close(got, 2.0 * ties(vectors.double().numpy(), [0.5] * 3))


def test_zero_vectors() -> None:
    assert torch.equal(knots_ties(torch.zeros(3, 6, 4), density=[0.5] * 3), torch.zeros(6, 4))
    vectors = torch.stack([torch.zeros(6, 4), numbers(6, 4)])
    assert_close(knots_ties(vectors.clone(), density=[1.0, 1.0]), vectors[1])
