"""SCE: select positions by variance, calculate weights, erase what disagrees."""

import numba
import numpy as np
import torch

from kinship.compiled import kernel
from merging.kernels.magnitude import cuts
from merging.kernels.sparsify import TILE, Keep, elected_sum, flat, in_band
from merging.registry import Parameter, tensor_method


@tensor_method(
    "sce",
    Parameter("select_topk", "fraction of the positions, those of largest variance, to keep", 1.0, low=0.0, high=1.0),
    Parameter("int8_mask", "accepted for mergekit's sake; changes nothing", default=False, kind="boolean"),
    base="needed",
    taxon="sparsified",
    formula="θ = θ₀ + Σᵢ∈A wᵢ τᵢ / Σᵢ∈A wᵢ;  wᵢ ∝ mean(τᵢ²),  A = {i : sgn τᵢ = sgn Σⱼ τⱼ}, where Var τ is large",
    reference="Wan et al., FuseChat, arXiv 2408.07990",
)
def sce(vectors: torch.Tensor, *, select_topk: float = 1.0, int8_mask: bool = False) -> torch.Tensor:
    """SCE of task vectors (p, \\*shape) fp32: (\\*shape) fp32 (arXiv 2408.07990, section 3.3). Overwrites ``vectors``.

    Of the positions whose variance over the models is not 0 the int(select_topk * count) with the largest stay, lower
    index first among equals; all with ``select_topk`` 1. As in mergekit the weights are equal where the mean squares
    sum to less than 1e-6, the elected sign is that of the unweighted sum, and divisors are 1e-6 at least.

    Costs two passes, two more to select; memory: one tensor, the result's.
    """
    rows = flat(vectors)
    out = np.empty_like(rows[0])
    if select_topk < 1.0:
        count = int(select_topk * _variances(rows, out))
        _erase(rows, out, cuts(out, [count])[0])
    squares = _squares(rows) / max(rows.shape[1], 1)
    total = squares.sum()
    weights = squares / total if total >= 1e-6 else np.full(len(rows), 1.0 / len(rows))
    ballots = np.ones(len(rows))
    elected_sum(rows, [Keep()] * len(rows), weights, ballots, weights, floor=1e-6, instead=1e-6, out=out)
    return torch.from_numpy(out).reshape(vectors.shape[1:])


@numba.njit(inline="always")
def _add(row, sums):  # type: ignore[no-untyped-def]
    for k in range(row.size):
        sums[k] += np.float64(row[k])


@numba.njit(inline="always")
def _add_squares(row, sums, count, squares):  # type: ignore[no-untyped-def]
    for k in range(row.size):
        distance = row[k] - sums[k] / count
        squares[k] += distance * distance


# In float64, so that equal elements have a variance of exactly 0.
@kernel()
def _variances(rows, out):  # type: ignore[no-untyped-def]
    """Write the population variance of each column of ``rows`` to ``out``; returns how many are not 0."""
    sums, squares = np.empty(TILE), np.empty(TILE)
    count = np.int64(0)
    for start in range(0, out.size, TILE):
        width = min(TILE, out.size - start)
        sums[:] = 0.0
        for i in range(len(rows)):
            _add(rows[i, start : start + width], sums)
        squares[:] = 0.0
        for i in range(len(rows)):
            _add_squares(rows[i, start : start + width], sums, np.float64(len(rows)), squares)
        out[start : start + width] = squares[:width] / len(rows)
        count += np.count_nonzero(out[start : start + width])
    return count


@kernel()
def _erase(rows, variances, low):  # type: ignore[no-untyped-def]
    bits = variances.view(np.uint32)
    for i in range(len(rows)):
        row = rows[i]
        for k in range(row.size):
            row[k] = row[k] if in_band(bits[k], k, low, np.int64(2**63 - 1)) else np.float32(0)


@kernel(fastmath={"reassoc", "contract", "nsz"})
def _squares(rows):  # type: ignore[no-untyped-def]
    sums = np.zeros(len(rows))
    for i in range(len(rows)):
        row, total = rows[i], 0.0
        for k in range(row.size):
            total += np.float64(row[k]) * np.float64(row[k])
        sums[i] = total
    return sums
