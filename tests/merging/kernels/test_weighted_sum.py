"""The weighted sum against float64, and its rounding against torch's."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.kernels.weighted_sum import TILE, sum_rows, to_bf16


def bits(tensor: torch.Tensor) -> np.ndarray:
    """bf16 as bit patterns, fp32 as it is."""
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [0, 1, TILE - 1, 2 * TILE + 17])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("written", [torch.float32, torch.bfloat16])
def test_weighted_sum(count: int, size: int, stored: torch.dtype, written: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(count)
    rows = torch.randn(count, size, generator=generator).to(stored)
    factors = torch.randn(count, generator=generator, dtype=torch.float64)
    out = torch.empty(size, dtype=written)
    assert sum_rows(bits(rows), factors.numpy(), bits(out))
    want = (factors[:, None] * rows.double()).sum(0)
    near = 3e-6 * float(factors.abs().sum()) + torch.finfo(written).eps / 2 * want.abs()
    assert bool(((out.double() - want).abs() <= near).all())


def test_large_coefficients_that_cancel_cost_no_digits() -> None:
    """base + 1e6 (x - base) where x - base is small: on raw weights it would lose six digits."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=500).astype(np.float32)
    other = (base + 1e-6 * rng.normal(size=500)).astype(np.float32)
    out = np.empty(500, dtype=np.float32)
    sum_rows(np.stack([base, other]), np.array([1 - 1e6, 1e6]), out)
    want = base + 1e6 * (other.astype(np.float64) - base)
    np.testing.assert_allclose(out, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factors", [[0.5, 0.5], [0.3, 0.7], [-2.0, 3.0]])
def test_equal_rows_come_back_as_they_are(factors: list[float]) -> None:
    row = np.random.default_rng(0).normal(size=300).astype(np.float32)
    out = np.empty_like(row)
    sum_rows(np.stack([row, row]), np.array(factors), out)
    np.testing.assert_array_equal(out, row)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
@settings(deadline=None, max_examples=200)
def test_rounding_to_bf16_is_torchs(patterns: list[int]) -> None:
    numbers = np.array(patterns, dtype=np.uint32).view(np.float32)
    got = torch.from_numpy(to_bf16(numbers)).view(torch.bfloat16)
    want = torch.from_numpy(numbers).bfloat16()
    assert torch.equal(got.isnan(), want.isnan())
    assert torch.equal(got[~got.isnan()], want[~want.isnan()])


@pytest.mark.parametrize(
    ("number", "written", "finite"),
    [
        (3.4e38, np.float32, True),
        (3.4e38, np.uint16, False),  # rounds to infinity
        (3.38e38, np.uint16, True),
        (np.inf, np.float32, False),
        (-np.inf, np.uint16, False),
        (np.nan, np.float32, False),
        (np.nan, np.uint16, False),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_not_finite_is_told(number: float, written: type, finite: bool, count: int) -> None:
    rows = np.zeros((count, 5000), dtype=np.float32)
    rows[0, 4321] = number
    factors = np.array([1.0, 0.0, 0.0][:count])
    out = np.empty(5000, dtype=written)
    assert sum_rows(rows, factors, out) == (finite and np.isfinite(number))


def test_coefficients_beyond_float32_are_told_by_the_answer_alone() -> None:
    out = np.empty(3, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not sum_rows(np.ones((2, 3), dtype=np.float32), np.array([1.0, 1e39]), out)
