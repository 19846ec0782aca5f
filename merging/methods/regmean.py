"""RegMean: each linear layer's outputs are nearest to those of each model on its own inputs."""

import torch

from merging.data_driven.fisher import average, require_weights
from merging.data_driven.regmean import regmean as solved
from merging.registry import Measured, Parameter, tensor_method

_PARAMETERS = (
    Parameter("weight", "factor of this model", default=1.0, per_model=True, low=0.0),
    Parameter("alpha", "factor of the products of different inputs", default=0.9, low=0.0, high=1.0),
)


@tensor_method(
    "regmean",
    *_PARAMETERS,
    measures="grams",
    data="documents of each model's task, without labels; forward passes only",
    taxon="weighted",
    review="optimisation",
    formula="Wᵀ = (Σᵢ wᵢ Hᵢ)⁻¹ Σᵢ wᵢ Hᵢ Wᵢᵀ;  H = a XᵀX + (1 - a) diag(XᵀX), a = alpha",
    reference="Jin et al., Dataless Knowledge Fusion by Merging Weights of Language Models, arXiv 2212.09849",
)
@tensor_method(
    "regmean_plus_plus",
    *_PARAMETERS,
    measures="grams along",
    summary="RegMean on the inputs that the merged layers before make, layer after layer.",
    data="documents of each model's task, without labels; a forward pass for each layer, all models in memory",
    taxon="weighted",
    review="optimisation",
    formula="as regmean, but X of layer l are the inputs of model i's layer l after the merged layers 1 .. l - 1",
    reference="Nguyen et al., RegMean++, arXiv 2508.03121",
)
def regmean(
    vectors: torch.Tensor, measured: Measured | None, *, weight: list[float], alpha: float = 0.9
) -> torch.Tensor:
    """Linear layers' weights (p, out, in) by the Gram matrices (p, in, in) of their inputs: (out, in).

    What is no linear layer's weight, or saw no data, is averaged: (*shape).
    """
    factors = require_weights(weight, len(vectors))
    if measured is None:
        return average(vectors, factors)
    return solved(vectors, measured.values, factors, alpha)
