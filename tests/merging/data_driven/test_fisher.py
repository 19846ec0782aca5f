"""The kernel beside what it stands for: the mode of a product of Gaussians."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinship.errors import InvalidConfig
from merging.data_driven.fisher import average, fisher_average, require_weights

SHAPES = [(3, 4), (5,), (), (2, 3, 4)]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.2, 0.0, 3.0]])
def test_the_result_is_the_mode_of_the_product_of_gaussians(shape: tuple[int, ...], weights: Sequence[float]) -> None:
    """Where the gradient of sum_i w_i F_i (theta - theta_i)^2 is zero."""
    vectors, fishers = numbers(3, *shape), numbers(3, *shape, seed=1).square()
    theta = fisher_average(vectors, fishers, weights).requires_grad_()
    loss = sum(w * (f * (theta - v).square()).sum() for w, f, v in zip(weights, fishers, vectors, strict=True))
    assert isinstance(loss, torch.Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    assert theta.grad is not None
    assert theta.grad.abs().max() < 1e-13


@given(seed=st.integers(0, 10_000), count=st.integers(1, 5), exponent=st.integers(-12, 12))
@settings(deadline=None, max_examples=50)
def test_what_changes_nothing(seed: int, count: int, exponent: int) -> None:
    vectors, fishers = numbers(count, 7, seed=seed), numbers(count, 7, seed=seed + 1).square()
    weights = np.random.default_rng(seed).uniform(0.1, 2.0, count).tolist()
    merged = fisher_average(vectors, fishers, weights)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    shuffled = fisher_average(vectors[order], fishers[order], [weights[place] for place in order.tolist()])
    torch.testing.assert_close(shuffled, merged)
    torch.testing.assert_close(fisher_average(vectors, fishers * 10.0**exponent, weights), merged)
    torch.testing.assert_close(fisher_average(vectors + 3.0, fishers, weights), merged + 3.0)
    low, high = vectors.min(dim=0).values, vectors.max(dim=0).values
    assert ((merged >= low - 1e-12) & (merged <= high + 1e-12)).all()


def test_models_that_are_equally_sure_are_averaged() -> None:
    vectors, fisher = numbers(3, 4, 5), numbers(4, 5, seed=1).square()
    merged = fisher_average(vectors, torch.stack([fisher] * 3), [1.0, 2.0, 5.0])
    torch.testing.assert_close(merged, average(vectors, [1.0, 2.0, 5.0]))
    torch.testing.assert_close(merged, (vectors[0] + 2 * vectors[1] + 5 * vectors[2]) / 8)


def test_the_only_model_that_is_sure_decides_and_where_none_is_all_do() -> None:
    vectors = torch.tensor([[1.0, 2.0, 3.0], [5.0, 6.0, 8.0]])
    fishers = torch.tensor([[1e-30, 0.0, 0.0], [0.0, 1e-30, 0.0]])
    assert fisher_average(vectors, fishers, [1.0, 3.0]).tolist() == [1.0, 6.0, 0.25 * 3.0 + 0.75 * 8.0]


def test_below_the_floor_models_count_alike() -> None:
    vectors = torch.tensor([[1.0, 1.0], [3.0, 3.0]])
    fishers = torch.tensor([[1e-9, 1e-9], [1e-12, 1.0]])
    merged = fisher_average(vectors, fishers, [1.0, 1.0], floor=1e-6)
    torch.testing.assert_close(merged, torch.tensor([2.0, (1e-6 * 1.0 + 3.0) / (1 + 1e-6)]))


def test_weights_are_one_each_unless_given() -> None:
    assert require_weights(None, 3) == [1.0, 1.0, 1.0]
    assert require_weights([0, 2], 2) == [0.0, 2.0]


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_weights_that_make_no_average_are_refused(weights: list[float]) -> None:
    with pytest.raises(InvalidConfig, match="for 2 models"):
        require_weights(weights, 2)
