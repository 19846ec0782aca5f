"""Parameter competition balancing: every entry weighed by its size and by its accord with the other models."""

import torch

from merging.registry import Parameter, tensor_method


@tensor_method(
    "pcb",
    Parameter("density", "share of each model's entries that is kept", default=0.1, low=0.0, high=1.0),
    Parameter("lambda", "factor of the merged task vector", default=1.0),
    base="needed",
    on_device=True,
    taxon="weighted",
    survey="subspace",
    review="magnitude",
    formula="base + lambda * sum_i b_i d_i / sum_i b_i;  b_i: top of softmax(p N(d_i d_i)) sum_j softmax(N(d_i d_j))",
    reference="Du et al., Parameter Competition Balancing for Model Merging, arXiv 2410.02396",
)
def pcb(vectors: torch.Tensor, *, density: float = 0.1, lambda_: float = 1.0) -> torch.Tensor:
    """PCB-Merging of task vectors (p, \\*shape) fp32: (\\*shape) fp32 (arXiv 2410.02396).

    N rescales to 0 .. 1. Where the authors' code weighs by ``exp`` and ``tanh`` without softmax, clips outliers and
    stretches the kept scores to 0 .. 1, this follows the paper. Paper and code take N, softmax and the largest scores
    over the whole model at once; here they are taken over each tensor, so every tensor keeps its own ``density``.
    Entries that no model keeps stay those of the base. Costs p * p passes over the input.

    >>> pcb(torch.tensor([[4.0, 0.0, 1.0], [4.0, 2.0, -1.0]]), density=0.34)
    tensor([4., 0., 0.])
    """
    flat = vectors.reshape(len(vectors), -1)
    kept = max(1, int(density * flat.shape[1]))
    merged, total = torch.zeros_like(flat[0]), torch.zeros_like(flat[0])
    for vector in flat:
        balance = _softmax(vector * vector, sharpness=len(flat))  # intra-balancing
        balance *= sum(_softmax(vector * other) for other in flat)  # inter-balancing
        least = balance.kthvalue(balance.numel() - kept + 1).values
        balance[balance < least] = 0.0
        merged += balance * vector
        total += balance
    return torch.where(total > 0, lambda_ * merged / total, 0.0).reshape(vectors.shape[1:])


def _softmax(scores: torch.Tensor, sharpness: float = 1.0) -> torch.Tensor:
    """Softmax over all entries of ``sharpness`` times the scores rescaled to 0 .. 1; equal scores share equally."""
    low, high = scores.aminmax()
    scores = (scores - low) / (high - low) if high > low else torch.ones_like(scores)
    weights = (sharpness * (scores - 1.0)).exp_()
    return weights / weights.sum()
