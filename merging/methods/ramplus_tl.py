"""RAM+: RAM that reinforces what one model changed alone, as much as sharing dilutes the rest of that model."""

import numpy as np
import torch

from merging.methods.ram import EPSILON, overlaps, shared_mean
from merging.registry import Parameter, tensor_method


@tensor_method(
    "ramplus_tl",
    EPSILON,
    Parameter("r", "strength of the reinforcement", default=0.1),
    Parameter("alpha", "bound of the ratio of shared to unique elements", default=0.2, low=0.0),
    needs_base=True,
    on_task_vectors=True,
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
