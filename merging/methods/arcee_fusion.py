"""Arcee Fusion: take over from a second model the changes that stand out."""

import torch

from merging.kernels.divergence import divergences
from merging.kernels.magnitude import cuts, magnitude
from merging.kernels.sparsify import flat
from merging.registry import tensor_method


@tensor_method(
    "arcee_fusion",
    min_models=2,
    max_models=2,
    base="merged",
    taxon="sparsified",
    formula="θ = θ₁ where s ≥ Q₂ + 1.5 (Q₃ - Q₁), else θ₀;  s = |θ₁ - θ₀| KL(softmax θ₁ ‖ softmax θ₀) by row",
    reference="Arcee AI, Meet MergeKit v0.1, 2025; mergekit",
)
def arcee_fusion(vectors: torch.Tensor) -> torch.Tensor:
    """Fusion of base and model, tensors (2, \\*shape) fp32: (\\*shape) fp32.

    An element's score is its distance, times the divergence of its row's softmax (rows along the last dimension).
    Those at or above median + 1.5 * interquartile range are the model's, the others the base's. Quantile q of n scores
    is the one at place int(q * (n - 1)), exact: unlike mergekit, which samples tensors beyond 1e6 elements. Divergences
    are in float64, where those of close models still have digits. Where three quarters of the scores are 0, so is the
    threshold, and all of the model is taken.

    Costs two exponentials an element; memory: two tensors, one of them the result.
    """
    base, other = vectors.reshape(2, -1, vectors.shape[-1] if vectors.dim() > 1 else 1).contiguous()
    scores = torch.sub(other, base).abs_().mul_(torch.from_numpy(divergences(other, base)).float()[:, None])
    values = flat(scores.unsqueeze(0))[0]
    places = [len(values) - int(q * (len(values) - 1)) for q in (0.25, 0.5, 0.75)]  # counted from the largest, from 1
    lower, median, upper = (magnitude(cut) for cut in cuts(values, places))
    taken = scores >= median + 1.5 * (upper - lower)
    return torch.where(taken, other, base, out=scores).reshape(vectors.shape[1:])
