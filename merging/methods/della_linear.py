"""DELLA without sign election."""

from collections.abc import Sequence
from typing import Any

import torch

from merging.kernels.magprune import EPSILON, magprune
from merging.kernels.sparsify import DENSITY, sparse_sum, sum_parameters
from merging.registry import tensor_method


@tensor_method(
    "della_linear",
    *sum_parameters(DENSITY, EPSILON, rescale=True),
    needs_base=True,
    on_task_vectors=True,
    random=True,
    taxon="sparsified",
    formula="θ = θ₀ + λ Σᵢ wᵢ sᵢ mᵢ ⊙ τᵢ;  mᵢ ~ Bernoulli(pᵢ),  pᵢ = density ± ε by rank of |τᵢ|",
    reference="Deep et al., DELLA-Merging, arXiv 2406.11617",
)
def della_linear(
    vectors: torch.Tensor,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    epsilon: Sequence[float],
    generator: torch.Generator,
    normalize: bool = False,
    rescale: bool = True,
    **rest: Any,
) -> torch.Tensor:
    """DELLA of task vectors (p, \\*shape) fp32: (\\*shape) fp32 (arXiv 2406.11617, section 3), without election.

    Overwrites ``vectors``. See `magprune` for what is dropped; ``rescale`` restores the L1 norm of
    each task vector. Draws one number from ``generator`` for each model of which something is dropped.
    """
    vectors = vectors.contiguous()
    keeps = [
        magprune(vector, share, spread, rescale=rescale, generator=generator)
        for vector, share, spread in zip(vectors, density, epsilon, strict=True)
    ]
    return sparse_sum(vectors, keeps, weight, elect=False, normalize=normalize, rescale=False, **rest)
