"""The kernel beside least squares solved by LAPACK on the stacked data."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.data_driven.fisher import average
from merging.data_driven.regmean import regmean

Array = np.ndarray


def problem(seed: int, count: int, rows: int, before: int, after: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Weights (p, out, in) and inputs (rows, in) of each model, whose inputs have scales of their own."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = [numbers(rows, before) @ numbers(before, before) * (place + 1.0) for place in range(count)]
    return numbers(count, after, before), inputs


def grams_of(inputs: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([x.T @ x for x in inputs])


def least_squares(weights: torch.Tensor, inputs: list[torch.Tensor]) -> Array:
    outputs = np.concatenate([(x @ w.T).numpy() for x, w in zip(inputs, weights, strict=True)])
    solution = np.linalg.lstsq(np.concatenate([x.numpy() for x in inputs]), outputs, rcond=None)[0]
    return np.asarray(solution.T)


def loss(weight: torch.Tensor, weights: torch.Tensor, inputs: list[torch.Tensor]) -> float:
    return float(sum((x @ (weight - own).T).square().sum() for x, own in zip(inputs, weights, strict=True)))


@given(seed=st.integers(0, 10_000), count=st.integers(1, 4), before=st.integers(1, 8), after=st.integers(1, 6))
@settings(deadline=None, max_examples=50)
def test_alpha_one_is_least_squares(seed: int, count: int, before: int, after: int) -> None:
    weights, inputs = problem(seed, count, 40, before, after)
    merged = regmean(weights, grams_of(inputs), [1.0] * count, alpha=1.0)
    np.testing.assert_allclose(merged.numpy(), least_squares(weights, inputs), rtol=1e-6, atol=1e-6)
    assert loss(merged, weights, inputs) <= loss(average(weights, [1.0] * count), weights, inputs) * (1 + 1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.9])
def test_alpha_is_the_papers_formula(alpha: float) -> None:
    weights, inputs = problem(3, 3, 40, 6, 4)
    factors = [0.5, 1.0, 2.0]
    shrunk = [
        factor * (alpha * gram + (1 - alpha) * np.diag(np.diag(gram)))
        for factor, gram in zip(factors, grams_of(inputs).numpy(), strict=True)
    ]
    right = sum(gram @ weight.T for gram, weight in zip(shrunk, weights.numpy(), strict=True))
    want = np.linalg.solve(np.sum(shrunk, axis=0), np.asarray(right)).T
    np.testing.assert_allclose(regmean(weights, grams_of(inputs), factors, alpha).numpy(), want, rtol=1e-10)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 1.0])
def test_what_changes_nothing(alpha: float) -> None:
    weights, inputs = problem(5, 3, 40, 6, 4)
    grams = grams_of(inputs)
    merged = regmean(weights, grams, [1.0, 2.0, 3.0], alpha)
    torch.testing.assert_close(regmean(weights, 1e-8 * grams, [10.0, 20.0, 30.0], alpha), merged)
    torch.testing.assert_close(regmean(weights.flip(0), grams.flip(0), [3.0, 2.0, 1.0], alpha), merged)
    shift = weights[0].flip(0)
    torch.testing.assert_close(regmean(weights + shift, grams, [1.0, 2.0, 3.0], alpha), merged + shift)
    torch.testing.assert_close(regmean(weights[:1].expand(3, -1, -1), grams, [1.0, 2.0, 3.0], alpha), weights[0])


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
def test_the_scale_of_an_input_does_not_matter(alpha: float) -> None:
    weights, inputs = problem(7, 2, 40, 5, 3)
    scale = 10.0 ** torch.arange(-4, 6, 2, dtype=torch.float64)
    merged = regmean(weights, grams_of(inputs), [1.0, 1.0], alpha)
    scaled = regmean(weights / scale, grams_of([x * scale for x in inputs]), [1.0, 1.0], alpha)
    torch.testing.assert_close(scaled * scale, merged, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
def test_models_with_equal_data_are_averaged(alpha: float) -> None:
    weights, inputs = problem(9, 3, 40, 6, 4)
    grams = grams_of([inputs[0]] * 3)
    torch.testing.assert_close(regmean(weights, grams, [1.0, 1.0, 2.0], alpha), average(weights, [1.0, 1.0, 2.0]))


@pytest.mark.parametrize("alpha", [0.9, 1.0])
def test_inputs_without_data_stay_at_the_average(alpha: float) -> None:
    weights, inputs = problem(11, 2, 40, 5, 3)
    for x in inputs:
        x[:, 2] = 0.0
    merged = regmean(weights, grams_of(inputs), [1.0, 3.0], alpha)
    torch.testing.assert_close(merged[:, 2], average(weights, [1.0, 3.0])[:, 2])
    others = [0, 1, 3, 4]
    rest = regmean(weights[:, :, others], grams_of([x[:, others] for x in inputs]), [1.0, 3.0], alpha)
    torch.testing.assert_close(merged[:, others], rest)


def test_with_less_data_than_inputs_the_fit_is_still_exact() -> None:
    """3 rows each and 8 inputs: the sum of the Grams is singular, and a perfect fit to both models exists."""
    weights, inputs = problem(13, 2, 3, 8, 4)
    merged = regmean(weights, grams_of(inputs), [1.0, 1.0], alpha=1.0)
    for x, own in zip(inputs, weights, strict=True):
        torch.testing.assert_close(x @ merged.T, x @ own.T, rtol=1e-6, atol=1e-6)
    assert merged.abs().max() < 20 * weights.abs().max()


def test_without_any_data_models_are_averaged() -> None:
    weights, _ = problem(15, 2, 3, 4, 4)
    for alpha in (0.9, 1.0):
        torch.testing.assert_close(
            regmean(weights, torch.zeros(2, 4, 4), [1.0, 1.0], alpha), average(weights, [1.0, 1.0])
        )


def test_fp32_is_solved_in_float64_and_given_back_as_it_came() -> None:
    weights, inputs = problem(17, 3, 200, 16, 8)
    want = regmean(weights, grams_of(inputs), [1.0] * 3)
    merged = regmean(weights.float(), grams_of(inputs).float(), [1.0] * 3)
    assert merged.dtype == torch.float32
    torch.testing.assert_close(merged.double(), want, rtol=1e-4, atol=1e-5)
