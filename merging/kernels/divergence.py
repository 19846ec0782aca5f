"""How far apart rows are as distributions: the Kullback-Leibler divergence of their softmaxes."""

import math

import numba
import numpy as np
import torch

from kinship.arrays import Float64
from kinship.compiled import kernel

TILE = 1024

# exp(x) = 2**n exp(r): n = round(x / ln 2), |r| <= ln 2 / 2, where the Taylor series to r**11 / 11! is good to 1e-14.
# Written out because loops over it become vector code, which loops over math.exp do not.
_LOG2_E = 1.0 / math.log(2.0)
_LN_2_HIGH, _LN_2_LOW = 0.6931471803691238, 1.9082149292705877e-10  # as in Cody and Waite 1980
_LEAST = -700.0  # exp is taken of no less; e**-700 still is a normal number


def divergences(new: torch.Tensor, old: torch.Tensor) -> Float64:
    """KL(softmax(new) || softmax(old)) of each row of (m, k) fp32, contiguous: (m,) float64.

    All sums are in float64, so that rows 1e-6 apart still have a divergence with digits; in fp32 it is lost below 1e-3.

    >>> old = torch.log(torch.tensor([[0.25, 0.75]]))
    >>> divergences(torch.zeros(1, 2), old).round(6).tolist()
    [0.143841]
    """
    out = np.empty(len(new))
    _divergences(new.numpy(), old.numpy(), out)
    return out


_FAST = {"reassoc", "contract", "nsz"}
_part = numba.njit(fastmath=_FAST, inline="always")


@_part
def _largest(row):  # type: ignore[no-untyped-def]
    largest = row[0]
    for k in range(row.size):
        largest = row[k] if row[k] > largest else largest
    return largest


@_part
def _split(row, largest, powers, rests):  # type: ignore[no-untyped-def]
    """Write n, as the bits of 2**n, and r for ``row`` less its largest element."""
    for k in range(row.size):
        x = max(np.float64(row[k]) - np.float64(largest), _LEAST)
        n = np.floor(x * _LOG2_E + 0.5)
        powers[k] = (np.int64(n) + 1023) << 52
        rests[k] = x - n * _LN_2_HIGH - n * _LN_2_LOW


@_part
def _series(r):  # type: ignore[no-untyped-def]
    total = 1.0 / 39916800
    for n in (3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2, 1, 1):
        total = total * r + 1.0 / n
    return total


@_part
def _sum(powers, rests):  # type: ignore[no-untyped-def]
    total = 0.0
    for k in range(rests.size):
        total += powers[k] * _series(rests[k])
    return total


@_part
def _weighted_sum(powers, rests, new, old):  # type: ignore[no-untyped-def]
    """The sums of exp(new) and of exp(new) (new - old)."""
    total, weighted = 0.0, 0.0
    for k in range(rests.size):
        exponential = powers[k] * _series(rests[k])
        total += exponential
        weighted += exponential * (np.float64(new[k]) - np.float64(old[k]))
    return total, weighted


@kernel(fastmath=_FAST)
def _divergences(new, old, out):  # type: ignore[no-untyped-def]
    bits, rests = np.empty(TILE, dtype=np.int64), np.empty(TILE)
    powers = bits.view(np.float64)
    for line in range(out.size):
        one, other = new[line], old[line]
        top, other_top = _largest(one), _largest(other)
        total, weighted, other_total = 0.0, 0.0, 0.0
        for start in range(0, one.size, TILE):
            part, other_part = one[start : start + TILE], other[start : start + TILE]
            width = part.size
            _split(part, top, bits[:width], rests[:width])
            sums = _weighted_sum(powers[:width], rests[:width], part, other_part)
            total += sums[0]
            weighted += sums[1]
            _split(other_part, other_top, bits[:width], rests[:width])
            other_total += _sum(powers[:width], rests[:width])
        # sum p (log p - log q), log p = new - top - log total
        shift = np.float64(other_top) - np.float64(top)
        out[line] = max(weighted / total + shift + math.log(other_total / total), 0.0)
