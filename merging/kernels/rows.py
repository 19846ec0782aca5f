"""Lines of tensors as vectors of their own: their inner products, and combinations with coefficients for each line.

A line runs along one dimension of a tensor, the last or the first; all others are told apart.
"""

from typing import TYPE_CHECKING

import numba
import numpy as np

from kinship.arrays import Float64
from kinship.compiled import kernel

if TYPE_CHECKING:
    import torch


def line_products(tensors: "torch.Tensor", axis: int) -> Float64:
    """Inner products (m, p, p) float64 of the m lines along ``axis`` (0 or -1) of p tensors (p, \\*shape) fp32.

    Costs p * (p + 1) / 2 multiply-adds an element, in float64, and one pass over the tensors.
    """
    first = axis == 0 and tensors.dim() > 2
    shape = (tensors.shape[1], -1) if first else (-1, tensors.shape[-1])
    rows = tensors.reshape(len(tensors), *shape).contiguous().numpy()
    products = np.zeros((rows.shape[2] if first else rows.shape[1], len(rows), len(rows)))
    (_along_first if first else _along_last)(rows, products)
    return products


def combine(tensors: "torch.Tensor", coefficients: Float64, axis: int) -> "torch.Tensor":
    """``sum_i c[line, i] tensors[i]`` of (p, \\*shape) fp32 for lines along ``axis``: (\\*shape) fp32.

    coefficients: (m, p), lines in the order of `line_products`. Costs p passes.
    """
    import torch

    lines = list(tensors.shape[1:])
    lines[axis] = 1
    factors = torch.from_numpy(coefficients.T.astype(np.float32)).reshape(len(tensors), *lines)
    result = tensors[0] * factors[0]
    for tensor, factor in zip(tensors[1:], factors[1:], strict=True):
        result.addcmul_(tensor, factor)
    return result


# Sums may be split over vector lanes, as in kinship/measures/moments.py.
_FAST = {"reassoc", "contract", "nsz"}


@numba.njit(fastmath=_FAST, inline="always")
def _dot(x, y):  # type: ignore[no-untyped-def]
    total = 0.0
    for k in range(x.size):
        total += np.float64(x[k]) * np.float64(y[k])
    return total


@numba.njit(fastmath=_FAST, inline="always")
def _add_products(x, y, sums):  # type: ignore[no-untyped-def]
    for k in range(sums.size):
        sums[k] += np.float64(x[k]) * np.float64(y[k])


@kernel(fastmath=_FAST)
def _along_last(rows, products):  # type: ignore[no-untyped-def]
    for line in range(rows.shape[1]):
        for i in range(len(rows)):
            for j in range(i + 1):
                products[line, i, j] = products[line, j, i] = _dot(rows[i, line], rows[j, line])


@kernel(fastmath=_FAST)
def _along_first(rows, products):  # type: ignore[no-untyped-def]
    sums = np.zeros((len(rows), len(rows), rows.shape[2]))
    for place in range(rows.shape[1]):
        for i in range(len(rows)):
            for j in range(i + 1):
                _add_products(rows[i, place], rows[j, place], sums[i, j])
    for i in range(len(rows)):
        for j in range(i + 1):
            products[:, i, j] = sums[i, j]
            products[:, j, i] = sums[i, j]
