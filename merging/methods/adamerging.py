"""Task arithmetic by coefficients that make the merge sure of its predictions on unlabelled data."""

from merging.registry import Combination, Parameter, span_method


@span_method(
    "adamerging",
    Parameter("weight", "coefficient of this model's task vector before the first step", default=0.3, per_model=True),
    Parameter("layerwise", "a coefficient for each layer; else one a model", default=True),
    Parameter("steps", "steps of Adam", default=500, kind="integer", low=0),
    Parameter("rate", "learning rate", default=1e-3, low=1e-12),
    Parameter("low", "least coefficient", default=0.0),
    Parameter("high", "greatest coefficient", default=1.0),
    base="needed",
    measures="entropy",
    data="documents of each model's task, without labels; forward and backward passes at every step",
    taxon="weighted",
    review="optimisation",
    formula="θ = θ₀ + Σᵢ λᵢ τᵢ, by model or layer;  λ = argmin Σ_tasks E_x H(p(·|x; θ)), by Adam",
    reference="Yang et al., AdaMerging, arXiv 2310.02575",
)
def adamerging(
    *,
    weight: list[float],
    layerwise: bool = True,
    steps: int = 500,
    rate: float = 1e-3,
    low: float = 0.0,
    high: float = 1.0,
) -> Combination:
    """Once the weights have been found (`merging.data_driven.adamerging`), the rest say nothing more."""
    return Combination.of_vectors(weight, has_base=True)
