"""Sparse sums of task vectors: what trim-and-merge methods (TIES, DARE, DELLA, Breadcrumbs ..) are made of.

Each model keeps some elements of its task vector, may be stretched to the L1 norm it had before, and is added to the
others with its weight; with sign election, only where its sign is the elected one. A `Keep` says which elements stay
without storing a mask, so that all of it happens in one pass over the vectors, in cache-sized tiles.

Kernels are compiled for the CPU, release the GIL, run on one thread and give the same bits whatever the others do.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from kinship.compiled import kernel
from kinship.random_bits import random_bits
from merging.kernels.magnitude import EVERY, NONE, cuts

TILE = 2048
ALWAYS = 2**32


class Keep(NamedTuple):
    """The elements of a flattened tensor that stay: in a band of magnitudes, and drawn.

    low, high: keys (`merging.kernels.magnitude`); an element is in the band if low <= key < high. seed, chance: element
    i is drawn if the i-th number of the stream ``seed``, uniform in 0 .. 2**32 - 1, is below ``chance``. stretch:
    the factor that gives what stays the L1 norm of all, where it is known.
    """

    low: int = EVERY
    high: int = NONE
    seed: int = 0
    chance: int = ALWAYS
    stretch: float | None = None


def keep_magnitudes(vector: NDArray[np.float32], skip: int, count: int) -> Keep:
    """Leave out the ``skip`` largest elements of ``vector`` (n,), keep the ``count`` next; lower index first."""
    count = min(count, vector.size - skip)
    if (skip, count) == (0, vector.size):
        return Keep()
    high, low = cuts(vector, [skip, skip + count])
    return Keep(low, high)


def keep_middle(vector: NDArray[np.float32], density: float, gamma: float) -> Keep:
    """Of the n elements leave out the int(gamma * n) largest and keep the int(density * n) next.

    Where there are not so many, fewer are left out; density 1 keeps all (Model Breadcrumbs, arXiv 2312.06795, and
    mergekit).
    """
    count = int(density * vector.size)
    return keep_magnitudes(vector, min(int(gamma * vector.size), vector.size - count), count)


def keep_drawn(density: float, generator: torch.Generator) -> Keep:
    """Keep each element with probability ``density``; draws one number from ``generator``."""
    seed = int(torch.randint(-(2**63), 2**63 - 1, (), generator=generator, device=generator.device))
    return Keep(seed=seed % 2**64, chance=round(density * ALWAYS))


def flat(tensors: torch.Tensor) -> NDArray[np.float32]:
    """Tensors (p, \\*shape) fp32 as rows (p, n), sharing memory where they are contiguous."""
    rows: NDArray[np.float32] = tensors.reshape(len(tensors), -1).contiguous().numpy()
    return rows


def sparse_sum(
    vectors: torch.Tensor,
    keeps: Sequence[Keep],
    weight: Sequence[float],
    *,
    elect: bool,
    normalize: bool,
    rescale: bool,
    factor: float = 1.0,
) -> torch.Tensor:
    """``factor * sum_i w_i s_i k_i(v_i) / divisor`` of task vectors (p, \\*shape) fp32: (\\*shape) fp32.

    k_i keeps elements; s_i is 1, or with ``rescale`` |v_i|_1 / |k_i(v_i)|_1. With ``elect``, an element takes part only
    where its weighted sign is that of the weighted sum, a sum of zero being positive and zeros never taking part (TIES,
    arXiv 2306.01708, section 3). The divisor is 1, or with ``normalize`` the sum of the weights that took part; within
    1e-8 of zero it counts as 1. Sums over elements are in float64, sums over models in fp32.

    Cost: one pass, one more over what is rescaled. The result takes the place of the first vector.
    """
    rows = flat(vectors)
    stretch = [_l1_ratio(row, keep) if rescale else 1.0 for row, keep in zip(rows, keeps, strict=True)]
    factors = np.array([w * s for w, s in zip(weight, stretch, strict=True)])
    out = rows[0]  # each tile of it is read before it is written
    if elect:
        votes = np.array(weight if normalize else [0.0] * len(rows))
        elected_sum(rows, keeps, factors, factors, votes, floor=1e-8, instead=1.0, out=out)
        if factor != 1.0:
            out *= np.float32(factor)
    else:
        total = sum(weight) if normalize else 1.0
        factors *= factor / (total if abs(total) >= 1e-8 else 1.0)
        _linear_sum(rows, *_columns(keeps), factors.astype(np.float32), out)
    return torch.from_numpy(out).reshape(vectors.shape[1:])


def elected_sum(
    rows: NDArray[np.float32],
    keeps: Sequence[Keep],
    factors: NDArray[np.float64],
    ballots: NDArray[np.float64],
    votes: NDArray[np.float64],
    *,
    floor: float,
    instead: float,
    out: NDArray[np.float32],
) -> None:
    """Write ``sum_i f_i x_i / sum_i votes_i`` over the models i that agree, element by element, into ``out`` (n,).

    x_i is what is kept of ``rows`` (p, n). Agreeing is to have, in b_i x_i, the sign of sum_j b_j x_j. Divisors nearer
    to zero than ``floor`` are replaced by ``instead``.
    """
    numbers = [values.astype(np.float32) for values in (factors, ballots, votes)]
    _elected_sum(rows, *_columns(keeps), *numbers, np.float32(floor), np.float32(instead), out)


def _l1_ratio(row: NDArray[np.float32], keep: Keep) -> float:
    """The factor that gives the kept elements the L1 norm of all; 1 where that is all or none of it."""
    if keep.stretch is not None:
        return keep.stretch
    if keep == Keep():
        return 1.0
    before, after = _l1_norms(row, row.view(np.uint32), *(column[0] for column in _columns([keep])))
    return float(before / after) if after > 0.0 else 1.0


def _columns(keeps: Sequence[Keep]) -> tuple[NDArray[Any], ...]:
    return (
        np.array([keep.low for keep in keeps], dtype=np.int64),
        np.array([keep.high for keep in keeps], dtype=np.int64),
        np.array([keep.seed for keep in keeps], dtype=np.uint64),
        np.array([keep.chance for keep in keeps], dtype=np.uint64),
    )


# As in kinship/measures/moments.py, parts become one with the kernel before it is compiled.
_part = numba.njit(inline="always")


@_part
def drawn(seed, index, chance):  # type: ignore[no-untyped-def]
    """Whether number ``index`` of the stream ``seed``, made at any place, is below ``chance``."""
    return random_bits(seed, np.uint64(index)) >> np.uint64(32) < chance


@_part
def in_band(bits, index, low, high):  # type: ignore[no-untyped-def]
    """Whether the key of the element with these ``bits`` at ``index`` is in low .. high, ``high`` not included."""
    key = np.int64(bits & np.uint32(0x7FFFFFFF)) << 32 | (0xFFFFFFFF - index)
    return low <= key and key < high


@_part
def _load(row, start, low, high, seed, chance, target):  # type: ignore[no-untyped-def]
    """Copy what is kept of ``row``, elements from ``start`` on, into ``target``, with zeros for the rest."""
    bits = row.view(np.uint32)
    if chance < np.uint64(ALWAYS):
        for k in range(target.size):
            target[k] = row[k] if drawn(seed, start + k, chance) else np.float32(0)
    elif low > EVERY or high < NONE:
        for k in range(target.size):
            target[k] = row[k] if in_band(bits[k], start + k, low, high) else np.float32(0)
    else:
        target[:] = row


@kernel(fastmath={"reassoc", "nsz"})
def _l1_norms(row, bits, low, high, seed, chance):  # type: ignore[no-untyped-def]
    """L1 norm of ``row``, and of what is kept of it."""
    before, after = 0.0, 0.0
    for i in range(row.size):
        size = np.float64(abs(row[i]))
        stays = in_band(bits[i], i, low, high) and drawn(seed, i, chance)
        before += size
        after += size if stays else 0.0
    return before, after


# No fast-math in sums over models: exactly opposite terms must cancel, which fused multiply-adds would prevent.
@_part
def _add(tile, factor, sums):  # type: ignore[no-untyped-def]
    for k in range(sums.size):
        sums[k] += factor * tile[k]


@_part
def _add_agreeing(tile, elected, factor, ballot, vote, sums, divisors):  # type: ignore[no-untyped-def]
    for k in range(sums.size):
        cast = ballot * tile[k]
        agrees = (cast > 0) if elected[k] >= 0 else (cast < 0)
        sums[k] += factor * tile[k] if agrees else np.float32(0)
        divisors[k] += vote if agrees else np.float32(0)


@_part
def _divide(sums, divisors, floor, instead, out):  # type: ignore[no-untyped-def]
    for k in range(sums.size):
        out[k] = sums[k] / (divisors[k] if abs(divisors[k]) >= floor else instead)


@kernel()
def _linear_sum(rows, lows, highs, seeds, chances, factors, out):  # type: ignore[no-untyped-def]
    tile, sums = np.empty(TILE, dtype=np.float32), np.empty(TILE, dtype=np.float32)
    for start in range(0, out.size, TILE):
        width = min(TILE, out.size - start)
        sums[:] = 0
        for i in range(len(rows)):
            row = rows[i, start : start + width]
            _load(row, start, lows[i], highs[i], seeds[i], chances[i], tile[:width])
            _add(tile[:width], factors[i], sums[:width])
        out[start : start + width] = sums[:width]


@kernel()
def _elected_sum(rows, lows, highs, seeds, chances, factors, ballots, votes, floor, instead, out):  # type: ignore[no-untyped-def]
    tile = np.empty((len(rows), TILE), dtype=np.float32)
    sums = np.empty((2, TILE), dtype=np.float32)  # and divisors
    elected = np.empty(TILE, dtype=np.float32)
    for start in range(0, out.size, TILE):
        width = min(TILE, out.size - start)
        elected[:] = 0
        for i in range(len(rows)):
            row = rows[i, start : start + width]
            _load(row, start, lows[i], highs[i], seeds[i], chances[i], tile[i, :width])
            _add(tile[i, :width], ballots[i], elected[:width])
        sums[:] = 0
        for i in range(len(rows)):
            factor, ballot, vote = factors[i], ballots[i], votes[i]
            _add_agreeing(tile[i, :width], elected[:width], factor, ballot, vote, sums[0, :width], sums[1, :width])
        _divide(sums[0, :width], sums[1, :width], floor, instead, out[start : start + width])
