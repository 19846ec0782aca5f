"""PCB-Merging beside the paper's equations in float64 NumPy, over one tensor."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from merging.methods.pcb import pcb
from merging.registry import get_method

Array = np.ndarray


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rescaled(scores: Array) -> Array:
    return np.asarray((scores - scores.min()) / (scores.max() - scores.min()))


def written_out(vectors: Array, kept: int) -> Array:
    """Intra- and inter-balancing, drop all but the ``kept`` best of each, weighted mean."""
    count = len(vectors)
    intra = [softmax(count * rescaled(t * t)) for t in vectors]
    inter = [sum(softmax(rescaled(t * other)) for other in vectors) for t in vectors]
    balance = np.array([a * b for a, b in zip(intra, inter, strict=True)])
    for row in balance:
        row[np.argsort(row)[: row.size - kept]] = 0.0
    total = balance.sum(axis=0)
    weighted = (balance * vectors).sum(axis=0)
    return np.asarray(np.divide(weighted, total, out=np.zeros_like(weighted), where=total > 0))


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (50,), (4, 5, 6)])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_as_the_paper_has_it(shape: tuple[int, ...], count: int, density: float) -> None:
    vectors = numbers(count, *shape)
    flat = vectors.reshape(count, -1).double().numpy()
    want = written_out(flat, int(density * flat.shape[1])).reshape(shape)
    got = pcb(vectors.clone(), density=density)
    np.testing.assert_allclose(got.numpy(), want, rtol=2e-5, atol=1e-6)


def test_lambda_is_the_factor_of_the_result() -> None:
    vectors = numbers(3, 6, 5)
    values = {"density": 0.2, "lambda": 1.7}
    got = get_method("pcb").tensor(vectors.clone(), values, has_base=True)
    want = written_out(vectors.reshape(3, -1).double().numpy(), 6).reshape(6, 5)
    np.testing.assert_allclose(got.numpy(), 1.7 * want, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_equal_models_keep_their_largest_entries(count: int) -> None:
    """Both scores grow with the square of an entry, so the top of the score is the top of the magnitude."""
    vector = numbers(100)
    got = pcb(vector.repeat(count, 1), density=0.2)
    largest = vector.abs() >= vector.abs().sort().values[80]
    torch.testing.assert_close(got, torch.where(largest, vector, 0.0))


def test_an_entry_that_others_contradict_counts_for_less() -> None:
    """Of two equally large entries of model 0, the others share the first's sign and oppose the second."""
    vectors = torch.tensor([[2.0, 2.0, 0.1, 0.0], [1.0, -1.0, 0.0, 0.1], [1.0, -1.0, 0.1, 0.0]])
    assert pcb(vectors.clone(), density=0.25).nonzero().flatten().tolist() == [0]


@pytest.mark.parametrize("shape", [(30, 20), (50,), (4, 5, 6), ()])
def test_the_order_of_models_does_not_matter(shape: tuple[int, ...]) -> None:
    vectors = numbers(3, *shape)
    torch.testing.assert_close(pcb(vectors[[2, 0, 1]], density=0.3), pcb(vectors.clone(), density=0.3))


@pytest.mark.parametrize("factor", [2.0**-20, 1024.0, -2.0])
def test_scaling_all_models_scales_the_result(factor: float) -> None:
    vectors = numbers(3, 20, 10)
    torch.testing.assert_close(pcb(factor * vectors), factor * pcb(vectors.clone()))


def test_the_result_lies_between_the_models() -> None:
    vectors = numbers(3, 20, 10)
    got = pcb(vectors.clone(), density=1.0)
    assert (got <= vectors.amax(dim=0) + 1e-6).all()
    assert (got >= vectors.amin(dim=0) - 1e-6).all()


def test_at_least_one_entry_of_each_is_kept() -> None:
    assert pcb(numbers(1, 8, 8), density=0.0).count_nonzero() == 1


def test_zero_vectors_stay_zero() -> None:
    assert torch.equal(pcb(torch.zeros(3, 4, 5)), torch.zeros(4, 5))
    assert torch.equal(pcb(torch.zeros(3)), torch.zeros(()))
