"""Mixture of experts: MLPs of dense fine-tunes side by side, chosen for each token by gates."""

from merging.registry import assembled_method

assembled_method(
    "moe",
    module="merging.mixture.plan",
    base="needed",
    taxon="routing",
    formula="MLP(x) = Σ_{i in top k} softmax(G x)ᵢ MLPᵢ(x), normalised;  Gᵢ from hidden states of prompts",
    reference="Jiang et al., Mixtral of Experts, arXiv 2401.04088; Goddard et al., mergekit-moe, arXiv 2403.13257",
    data="prompts for each expert, unless gates are random",
)
