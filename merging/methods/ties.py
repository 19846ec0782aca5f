"""TIES: trim, elect signs, and merge what agrees."""

from collections.abc import Sequence
from typing import Any

import torch

from merging.kernels.sparsify import DENSITY, flat, keep_magnitudes, sparse_sum, sum_parameters
from merging.registry import tensor_method


@tensor_method(
    "ties",
    *sum_parameters(DENSITY, normalize=True),
    needs_base=True,
    on_task_vectors=True,
    taxon="sparsified",
    formula="θ = θ₀ + λ Σᵢ∈A wᵢ topk(τᵢ) / Σᵢ∈A wᵢ;  A = {i : sgn wᵢ topk(τᵢ) = sgn Σⱼ wⱼ topk(τⱼ)}",
    reference="Yadav et al., TIES-Merging, arXiv 2306.01708",
)
def ties(
    vectors: torch.Tensor,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    normalize: bool = True,
    rescale: bool = False,
    **rest: Any,
) -> torch.Tensor:
    """TIES of task vectors (p, \\*shape) fp32: (\\*shape) fp32 (arXiv 2306.01708, algorithm 1), with weights.

    Of each task vector the max(1, int(density * n)) largest magnitudes stay, lower index first among equals; none where
    density is 0. See `sparse_sum` for election, normalisation and the rest of the parameters.

    >>> ties(torch.tensor([[4.0, 1.0, -2.0], [0.1, -2.0, -1.0]]), weight=[1, 1], density=[0.7, 0.7])
    tensor([ 4.0000, -2.0000, -1.5000])
    """
    size = vectors[0].numel()
    counts = [max(1, int(share * size)) if share > 0.0 else 0 for share in density]
    keeps = [keep_magnitudes(row, 0, count) for row, count in zip(flat(vectors), counts, strict=True)]
    return sparse_sum(vectors, keeps, weight, elect=True, normalize=normalize, rescale=rescale, **rest)
