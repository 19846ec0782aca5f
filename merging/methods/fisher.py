"""Fisher-weighted average: each weight of each model counts by how much its predictions depend on it."""

import torch

from merging.data_driven.fisher import average, fisher_average, require_weights
from merging.registry import Measured, Parameter, tensor_method


@tensor_method(
    "fisher",
    Parameter("weight", "factor of this model", default=1.0, per_model=True, low=0.0),
    Parameter("normalize", "divide each model's Fisher by its root mean square", default=True),
    Parameter("floor", "least that an entry counts, in units of the root mean square", default=1e-6, low=0.0),
    measures="fisher",
    data="documents of each model's task, without labels; one gradient a document",
    taxon="weighted",
    review="optimisation",
    formula="θ = Σᵢ wᵢ Fᵢ θᵢ / Σᵢ wᵢ Fᵢ, entry by entry;  F = E_x E_y~p(y|x) (∇ log p(y|x))²",
    reference="Matena and Raffel, Merging Models with Fisher-Weighted Averaging, arXiv 2111.09832",
)
def fisher(
    vectors: torch.Tensor,
    measured: Measured | None,
    *,
    weight: list[float],
    normalize: bool = True,
    floor: float = 1e-6,
) -> torch.Tensor:
    """Models (p, *shape) by their Fisher diagonals of the same shape: (*shape). Those without are averaged.

    A Fisher's scale says how sure a model is of its predictions; with ``normalize`` it is taken out, as in the authors'
    code, where it is the norm.
    """
    factors = require_weights(weight, len(vectors))
    if measured is None:
        return average(vectors, factors)
    sizes = measured.model if normalize else [sum(measured.model) / len(measured.model)] * len(measured.model)
    units = measured.values.new_tensor(sizes).reshape(-1, *[1] * (vectors.dim() - 1))
    return fisher_average(vectors, (measured.values / units).to(vectors.dtype), factors, floor)
