"""RAM: average what several models changed, keep whole what one changed alone."""

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from kinship.compiled import kernel
from merging.kernels.sparsify import TILE, flat
from merging.registry import Parameter, tensor_method

EPSILON = Parameter("epsilon", "elements no larger than this count as unchanged", default=1e-5, low=0.0)


@tensor_method(
    "ram",
    EPSILON,
    base="needed",
    taxon="sparsified",
    formula="θ = θ₀ + Σᵢ∈C τᵢ / |C|;  C = {i : |τᵢ| > ε}",
    reference="Yuan et al., Behavior Knowledge Merge in Reinforced Agentic Models, arXiv 2601.13572",
)
def ram(vectors: torch.Tensor, *, epsilon: float = 1e-5) -> torch.Tensor:
    """Reinforced Agent Merging of task vectors (p, \\*shape) fp32: (\\*shape) fp32 (arXiv 2601.13572).

    An element is the mean over the models that changed it, by more than ``epsilon``. One pass.

    >>> ram(torch.tensor([[2.0, 4.0, 0.0], [4.0, 0.0, 0.0]]))
    tensor([3., 4., 0.])
    """
    return shared_mean(vectors, epsilon, np.ones(len(vectors)))


@tensor_method(
    "ramplus_tl",
    EPSILON,
    Parameter("r", "strength of the reinforcement", default=0.1),
    Parameter("alpha", "bound of the ratio of shared to unique elements", default=0.2, low=0.0),
    base="needed",
    summary="RAM+: RAM that reinforces what one model changed alone, as much as sharing dilutes the rest of that "
    "model.",
    taxon="sparsified",
    formula="as RAM, with τᵢ λᵢ where i alone changed;  λᵢ = 1 + r clip(sharedᵢ / uniqueᵢ, 0, alpha)",
    reference="Yuan et al., Behavior Knowledge Merge in Reinforced Agentic Models, arXiv 2601.13572",
)
def ramplus_tl(vectors: torch.Tensor, *, epsilon: float = 1e-5, r: float = 0.1, alpha: float = 0.2) -> torch.Tensor:
    """RAM+ of task vectors (p, \\*shape) fp32, tensor-local: (\\*shape) fp32 (arXiv 2601.13572).

    The paper counts shared and unique elements over the whole model; here, as in mergekit, each tensor counts its own.
    A model without unique elements in a tensor has nothing to reinforce there. Two passes.

    >>> ramplus_tl(torch.tensor([[2.0, 4.0, 0.0], [4.0, 0.0, 0.0]]), r=0.5, alpha=1.0)
    tensor([3., 6., 0.])
    """
    unique, shared = overlaps(vectors, epsilon).T
    return shared_mean(vectors, epsilon, 1.0 + r * np.clip(shared / np.maximum(unique, 1), 0.0, alpha))


def shared_mean(vectors: torch.Tensor, epsilon: float, gains: NDArray[np.float64]) -> torch.Tensor:
    """`ram`, with the elements that model i alone changed multiplied by ``gains[i]``."""
    rows = flat(vectors)
    out = np.empty_like(rows[0])
    _shared_mean(rows, np.float32(epsilon), gains.astype(np.float32), out)
    return torch.from_numpy(out).reshape(vectors.shape[1:])


def overlaps(vectors: torch.Tensor, epsilon: float) -> NDArray[np.int64]:
    """How many elements each model of (p, \\*shape) changed alone, and how many with others: (p, 2). One pass."""
    rows = flat(vectors)
    counts = np.zeros((len(rows), 2), dtype=np.int64)
    _count(rows, np.float32(epsilon), counts)
    return counts


_part = numba.njit(inline="always")


@_part
def _users(rows, start, width, epsilon, users):  # type: ignore[no-untyped-def]
    """How many of ``rows`` are changed, for each of ``width`` elements from ``start`` on."""
    users[:] = 0
    for i in range(len(rows)):
        row = rows[i, start : start + width]
        for k in range(width):
            users[k] += np.float32(abs(row[k]) > epsilon)


@_part
def _add_changed(row, users, epsilon, gain, sums):  # type: ignore[no-untyped-def]
    for k in range(row.size):
        value = gain * row[k] if users[k] == np.float32(1) else row[k]
        sums[k] += value if abs(row[k]) > epsilon else np.float32(0)


@_part
def _divide(users, sums):  # type: ignore[no-untyped-def]
    for k in range(sums.size):
        sums[k] /= max(users[k], np.float32(1))


@kernel()
def _shared_mean(rows, epsilon, gains, out):  # type: ignore[no-untyped-def]
    users = np.empty(TILE, dtype=np.float32)
    for start in range(0, out.size, TILE):
        width = min(TILE, out.size - start)
        _users(rows, start, width, epsilon, users)
        sums = out[start : start + width]
        sums[:] = 0
        for i in range(len(rows)):
            _add_changed(rows[i, start : start + width], users[:width], epsilon, gains[i], sums)
        _divide(users[:width], sums)


@_part
def _count_changed(row, users, epsilon):  # type: ignore[no-untyped-def]
    alone, shared = np.int32(0), np.int32(0)
    for k in range(row.size):
        changed = abs(row[k]) > epsilon
        alone += np.int32(changed and users[k] == np.float32(1))
        shared += np.int32(changed and users[k] > np.float32(1))
    return alone, shared


@kernel()
def _count(rows, epsilon, counts):  # type: ignore[no-untyped-def]
    users = np.empty(TILE, dtype=np.float32)
    for start in range(0, rows.shape[1], TILE):
        width = min(TILE, rows.shape[1] - start)
        _users(rows, start, width, epsilon, users)
        for i in range(len(rows)):
            alone, shared = _count_changed(rows[i, start : start + width], users[:width], epsilon)
            counts[i, 0] += alone
            counts[i, 1] += shared
