"""SMILE: the base, and each model's task vector as a low-rank expert beside it, chosen token by token in scoring."""

import torch

from merging.registry import Parameter, tensor_method


@tensor_method(
    "smile",
    Parameter("rank", "of an expert, at most; a matrix's own gives all of its change", 128, kind="integer", low=1),
    Parameter("gate_rank", "leading directions of an expert that choose it", 1, kind="integer", low=1),
    Parameter("experts_per_token", "experts that a token goes through", 1, kind="integer", low=1),
    base="needed",
    beside=True,
    taxon="routing",
    formula="y = W₀ x + Σ_{i in top k} softmax(‖Vᵢᵀ x‖)ᵢ Uᵢ Sᵢ Vᵢᵀ x,  Uᵢ Sᵢ Vᵢᵀ: τᵢ of a linear layer, cut to a rank",
    reference="Tang et al., SMILE: Zero-Shot Sparse Mixture of Low-Rank Experts, arXiv 2408.10174",
)
def smile(vectors: torch.Tensor, *, rank: int = 128, gate_rank: int = 1, experts_per_token: int = 1) -> torch.Tensor:
    """The mean of task vectors (p, \\*shape) of what is no linear layer: (\\*shape).

    Linear layers stay the base's: `merging.beside.making` sees to that, and to the experts. The authors keep the base's
    embeddings and norms too; with their mean, one expert of full rank is its fine-tune.
    """
    return vectors.mean(dim=0)
