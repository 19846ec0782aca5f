"""WUDI beside Adam written out in float64 on the paper's loss, and beside the loss's minimum."""

import numpy as np
import pytest
import torch

from merging.methods.wudi import wudi
from merging.registry import get_method


def updates(*shape: int, seed: int = 0, size: float = 1e-3) -> torch.Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loss(merged: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """sum_i |(d - d_i) d_i^T|^2 / |d_i|^2 (Frobenius), pair by pair."""
    return sum(
        (((merged - vector) @ vector.T).square().sum() / vector.square().sum() for vector in vectors),
        start=torch.zeros((), dtype=vectors.dtype),
    )


def written_out(vectors: torch.Tensor, steps: int, rate: float) -> torch.Tensor:
    """Adam (Kingma and Ba, algorithm 1) in float64, its gradient by automatic differentiation."""
    vectors = vectors.double()
    merged = vectors.sum(dim=0)
    first, second = torch.zeros_like(merged), torch.zeros_like(merged)
    for step in range(1, steps + 1):
        leaf = merged.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf, vectors), leaf)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        merged = merged - rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    return merged


def minimum(vectors: torch.Tensor) -> torch.Tensor:
    """The normal equations of the loss: d H = B."""
    vectors = vectors.double()
    grams = [vector.T @ vector / vector.square().sum() for vector in vectors]
    target = sum((v @ g for v, g in zip(vectors, grams, strict=True)), start=torch.zeros_like(vectors[0]))
    return torch.linalg.solve(torch.stack(grams).sum(dim=0), target, left=False)


@pytest.mark.parametrize("shape", [(12, 9), (9, 12), (10, 10), (1, 5), (5, 1)])
@pytest.mark.parametrize("count", [2, 3])
def test_as_the_paper_has_it(shape: tuple[int, int], count: int) -> None:
    vectors = updates(count, *shape)
    got = wudi(vectors.clone(), steps=50, rate=1e-5)
    moved = written_out(vectors, 50, 1e-5)
    np.testing.assert_allclose(got.numpy(), moved.numpy(), rtol=0, atol=2e-8)
    assert (moved - vectors.sum(dim=0)).abs().max() > 1e-4


def test_defaults_are_the_papers() -> None:
    vectors = updates(3, 8, 6)
    method = get_method("wudi")
    values = {parameter.name: parameter.default for parameter in method.parameters}
    got = method.tensor(vectors.clone(), values, has_base=True)
    np.testing.assert_allclose(got.numpy(), written_out(vectors, 300, 1e-5).numpy(), rtol=0, atol=5e-8)


def test_no_steps_leave_the_sum() -> None:
    vectors = updates(3, 8, 6)
    assert torch.equal(wudi(vectors.clone(), steps=0), vectors.sum(dim=0))


def test_many_steps_reach_the_minimum() -> None:
    vectors = updates(3, 20, 6, size=1.0)
    got = wudi(vectors.clone(), steps=1000, rate=2e-2)
    np.testing.assert_allclose(got.numpy(), minimum(vectors).numpy(), atol=1e-3)
    assert (vectors.sum(dim=0) - minimum(vectors)).abs().max() > 0.5


def test_steps_lower_the_loss() -> None:
    vectors = updates(3, 16, 24)
    losses = [float(loss(wudi(vectors.clone(), steps=steps).double(), vectors.double())) for steps in (0, 30, 100, 300)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]


def test_equal_models_approach_their_common_update() -> None:
    """It has no interference with itself: its loss is 0, and that of the sum is not."""
    vector = updates(1, 20, 6, size=1.0)
    got = wudi(vector.repeat(3, 1, 1), steps=1500, rate=2e-2)
    assert loss(got, vector) < 1e-4 * loss(3 * vector[0], vector)


def test_one_model_is_left_as_it_is() -> None:
    vector = updates(1, 16, 8)
    np.testing.assert_allclose(wudi(vector.clone()).numpy(), vector[0].numpy(), rtol=0, atol=1e-7)


def test_updates_on_different_inputs_do_not_interfere() -> None:
    vectors = torch.zeros(2, 6, 8)
    vectors[0, :, :4], vectors[1, :, 4:] = updates(6, 4), updates(6, 4, seed=1)
    np.testing.assert_allclose(wudi(vectors.clone()).numpy(), vectors.sum(dim=0).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(12, 9), (7,), (2, 3, 4)])
def test_the_order_of_models_does_not_matter(shape: tuple[int, ...]) -> None:
    vectors = updates(3, *shape)
    np.testing.assert_allclose(wudi(vectors[[2, 0, 1]]).numpy(), wudi(vectors.clone()).numpy(), rtol=0, atol=2e-8)


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4), ()])
def test_tensors_that_are_no_matrices_are_averaged(shape: tuple[int, ...]) -> None:
    vectors = updates(4, *shape)
    np.testing.assert_allclose(
        wudi(vectors.clone()).numpy(), vectors.double().mean(dim=0).numpy(), rtol=1e-6, atol=1e-9
    )


def test_zero_vectors() -> None:
    assert torch.equal(wudi(torch.zeros(2, 4, 3)), torch.zeros(4, 3))
    vector = updates(4, 3)
    with_zero = wudi(torch.stack([torch.zeros(4, 3), vector]))
    np.testing.assert_allclose(with_zero.numpy(), vector.numpy(), rtol=0, atol=1e-7)
