"""DARE with sign election."""

from collections.abc import Sequence
from typing import Any

import torch

from merging.kernels.sparsify import DENSITY, keep_drawn, sparse_sum, sum_parameters
from merging.registry import tensor_method


@tensor_method(
    "dare_ties",
    *sum_parameters(DENSITY, rescale=True),
    needs_base=True,
    on_task_vectors=True,
    random=True,
    taxon="sparsified",
    formula="θ = θ₀ + λ Σᵢ∈A wᵢ sᵢ mᵢ ⊙ τᵢ;  mᵢ ~ Bernoulli(density),  sᵢ = |τᵢ|₁ / |mᵢ ⊙ τᵢ|₁,  A as in TIES",
    reference="Yu et al., Language Models are Super Mario, arXiv 2311.03099",
)
def dare_ties(
    vectors: torch.Tensor,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    generator: torch.Generator,
    normalize: bool = False,
    rescale: bool = True,
    **rest: Any,
) -> torch.Tensor:
    """DARE of task vectors (p, \\*shape) fp32: (\\*shape) fp32 (arXiv 2311.03099, section 3.2).

    Then TIES' sign election (arXiv 2306.01708).
    Elements stay with probability ``density``. As in mergekit ``rescale`` restores the L1 norm of each task vector
    rather than divide by density, which is the same on average; a task vector of which nothing stayed is zero.
    Draws one number per model from ``generator``.
    """
    keeps = [keep_drawn(share, generator) for share in density]
    return sparse_sum(vectors, keeps, weight, elect=True, normalize=normalize, rescale=rescale, **rest)
