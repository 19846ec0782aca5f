"""TSV-Merge beside the paper's equations in NumPy, which takes its singular vectors from another routine."""

import numpy as np
import pytest
import torch
from scipy.linalg import polar as scipy_polar
from scipy.stats import ortho_group

from kinship.errors import NonFiniteWeights
from merging.kernels.spectral import polar, svd
from merging.methods.tsv import tsv
from merging.registry import get_method

Array = np.ndarray
SHAPES = [(12, 9), (9, 12), (10, 10), (30, 4)]


def matrices(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def low_rank(count: int, rows: int, columns: int, rank: int, seed: int = 0) -> torch.Tensor:
    return matrices(count, rows, rank, seed=seed) @ matrices(count, rank, columns, seed=seed + 1)


def written_out(vectors: Array) -> Array:
    """Truncate each to rank r / p, orthonormalise all left and all right vectors by X (X^T X)^(-1/2), multiply."""
    parts = [np.linalg.svd(vector.astype(np.float64), full_matrices=False) for vector in vectors]
    count = min(vectors.shape[1:]) // len(vectors)
    left = np.concatenate([u[:, :count] for u, _, _ in parts], axis=1)
    right = np.concatenate([vh[:count] for _, _, vh in parts]).T
    return np.asarray(whitened(left) @ np.diag(np.concatenate([s[:count] for _, s, _ in parts])) @ whitened(right).T)


def whitened(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    return np.asarray(matrix @ vectors @ np.diag(values**-0.5) @ vectors.T)


def assert_close(got: torch.Tensor, want: Array | torch.Tensor, tolerance: float = 1e-6) -> None:
    """To ``tolerance`` of the largest entry."""
    wanted = torch.as_tensor(want)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted.double(), rtol=0, atol=tolerance * float(wanted.abs().max()))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_the_paper_has_it(shape: tuple[int, int], count: int) -> None:
    vectors = matrices(count, *shape)
    assert_close(tsv(vectors.clone()), written_out(vectors.numpy()))


def test_lambda_is_the_factor_of_the_result() -> None:
    vectors = matrices(3, 8, 8)
    got = get_method("tsv").tensor(vectors.clone(), {"lambda": 0.3}, has_base=True)
    assert_close(got, 0.3 * written_out(vectors.numpy()))


def test_one_model_is_left_as_it_is() -> None:
    vector = matrices(1, 7, 11)
    assert_close(tsv(vector.clone()), vector[0])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_equal_models_give_their_leading_directions(count: int) -> None:
    """Their singular vectors coincide, so the nearest orthonormal ones are these, shared by all."""
    vector = matrices(10, 12)
    u, s, vh = np.linalg.svd(vector.double().numpy(), full_matrices=False)
    kept = 10 // count
    assert_close(tsv(vector.repeat(count, 1, 1)), (u[:, :kept] * s[:kept]) @ vh[:kept])


def test_updates_that_do_not_interfere_are_added() -> None:
    vectors = torch.zeros(2, 8, 8)
    vectors[0, :4, :4], vectors[1, 4:, 4:] = matrices(4, 4), matrices(4, 4, seed=1)
    assert_close(tsv(vectors.clone()), vectors.sum(dim=0))


@pytest.mark.parametrize("shape", SHAPES)
def test_turning_inputs_and_outputs_turns_the_result(shape: tuple[int, int]) -> None:
    """What no choice of singular vectors, or of their signs, could survive if it leaked into the result."""
    random = np.random.default_rng(0)
    left = torch.from_numpy(ortho_group.rvs(shape[0], random_state=random))
    right = torch.from_numpy(ortho_group.rvs(shape[1], random_state=random))
    for vectors in (matrices(3, *shape).double(), low_rank(3, *shape, rank=1).double()):
        got = tsv((left @ vectors @ right).float())
        assert_close(got, left @ tsv(vectors.float()).double() @ right, tolerance=1e-5)


def test_low_rank_updates_bring_only_their_own_directions() -> None:
    """Three rank-1 adapters: the polar factors of their normalised columns and rows, weighed by their norms."""
    columns, rows = matrices(3, 20, 1).double(), matrices(3, 1, 16, seed=1).double()
    left, right = columns / columns.norm(dim=1, keepdim=True), rows / rows.norm(dim=2, keepdim=True)
    sizes = (columns.norm(dim=1) * rows.norm(dim=2)).flatten()
    outputs, inputs = left.squeeze(2).T.numpy(), right.squeeze(1).T.numpy()
    want = whitened(outputs) @ np.diag(sizes.numpy()) @ whitened(inputs).T
    got = tsv((columns @ rows).float())
    assert_close(got, want)
    assert torch.linalg.matrix_rank(got.double(), rtol=1e-5) == 3


@pytest.mark.parametrize("shape", [*SHAPES, (5,), (2, 3, 4), ()])
def test_the_order_of_models_does_not_matter(shape: tuple[int, ...]) -> None:
    vectors = matrices(3, *shape)
    assert_close(tsv(vectors[[2, 0, 1]]), tsv(vectors.clone()))


@pytest.mark.parametrize("factor", [1e-6, 100.0, -2.0])
def test_scaling_all_models_scales_the_result(factor: float) -> None:
    vectors = matrices(3, 9, 12)
    assert_close(tsv(factor * vectors), factor * tsv(vectors.clone()))


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4), ()])
def test_tensors_that_are_no_matrices_are_averaged(shape: tuple[int, ...]) -> None:
    vectors = matrices(4, *shape)
    got = tsv(vectors.clone(), lambda_=0.5)
    np.testing.assert_allclose(got.numpy(), 0.5 * vectors.double().mean(dim=0).numpy(), rtol=1e-6, atol=1e-7)


def test_zero_vectors() -> None:
    assert torch.equal(tsv(torch.zeros(3, 6, 4)), torch.zeros(6, 4))
    vectors = torch.stack([torch.zeros(6, 4), low_rank(1, 6, 4, rank=1)[0]])
    assert_close(tsv(vectors.clone()), vectors[1])


def test_more_models_than_directions_keep_one_each() -> None:
    vectors = matrices(5, 3, 2)
    got = tsv(vectors.clone())
    assert got.isfinite().all()
    assert got.abs().max() > 0


def test_nan_is_refused() -> None:
    vectors = matrices(2, 3, 3)
    vectors[1, 0, 0] = torch.nan
    with pytest.raises(NonFiniteWeights):
        tsv(vectors)


@pytest.mark.parametrize("shape", SHAPES)
def test_svd_is_numpys(shape: tuple[int, int]) -> None:
    matrix = matrices(*shape).double()
    u, s, vh = svd(matrix)
    np.testing.assert_allclose(s.numpy(), np.linalg.svd(matrix.numpy(), compute_uv=False), rtol=1e-10)
    np.testing.assert_allclose((u * s) @ vh, matrix, atol=1e-12)
    np.testing.assert_allclose(u.T @ u, np.eye(len(s)), atol=1e-12)
    np.testing.assert_allclose(vh @ vh.T, np.eye(len(s)), atol=1e-10)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_svd_finds_the_rank(rank: int) -> None:
    matrix = low_rank(1, 9, 14, rank)[0].double()
    assert [part.shape for part in svd(matrix)] == [(9, rank), (rank,), (rank, 14)]
    assert [part.shape for part in svd(matrix.T)] == [(14, rank), (rank,), (rank, 9)]


def test_polar_is_scipys() -> None:
    matrix = matrices(8, 5).double().numpy()
    np.testing.assert_allclose(polar(torch.from_numpy(matrix)), scipy_polar(matrix)[0], atol=1e-12)
