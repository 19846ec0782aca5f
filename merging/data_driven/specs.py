"""The data-driven methods as a table, for the documentation; needing more than a recipe, they are no `MergeMethod`."""

from dataclasses import dataclass

from merging.registry import Base, Parameter, Taxon


@dataclass(frozen=True)
class DataDrivenMethod:
    """One method, described as `merging.registry.MergeMethod` is.

    data: what it needs to see of each model's task. entry: the function that does it, in this package.
    """

    name: str
    parameters: tuple[Parameter, ...]
    data: str
    entry: str
    base: Base = "none"
    taxon: Taxon = "weighted"
    formula: str = ""
    reference: str = ""


_WEIGHTS = Parameter("weights", "factor of this model", default=1.0, per_model=True, low=0.0)

DATA_DRIVEN = (
    DataDrivenMethod(
        "fisher",
        (
            _WEIGHTS,
            Parameter("normalize", "divide each model's Fisher by its root mean square", default=True),
            Parameter("floor", "least that an entry counts, in units of the root mean square", default=1e-6, low=0.0),
        ),
        data="batches of each model's task, without labels; one gradient an example",
        entry="run.fisher_merge",
        formula="θ = Σᵢ wᵢ Fᵢ θᵢ / Σᵢ wᵢ Fᵢ, entry by entry;  F = E_x E_y~p(y|x) (∇ log p(y|x))²",
        reference="Matena and Raffel, Merging Models with Fisher-Weighted Averaging, arXiv 2111.09832",
    ),
    DataDrivenMethod(
        "regmean",
        (
            _WEIGHTS,
            Parameter("alpha", "factor of the products of different inputs", default=0.9, low=0.0, high=1.0),
        ),
        data="batches of each model's task, without labels; forward passes only",
        entry="run.regmean_merge",
        formula="Wᵀ = (Σᵢ wᵢ Hᵢ)⁻¹ Σᵢ wᵢ Hᵢ Wᵢᵀ;  H = a XᵀX + (1 - a) diag(XᵀX), a = alpha",
        reference="Jin et al., Dataless Knowledge Fusion by Merging Weights of Language Models, arXiv 2212.09849",
    ),
    DataDrivenMethod(
        "adamerging",
        (
            Parameter("steps", "steps of Adam", default=500, kind="integer", low=0),
            Parameter("rate", "learning rate", default=1e-3, low=0.0),
            Parameter("start", "coefficient of every task vector before the first step", default=0.3),
            Parameter("low", "least coefficient", default=0.0),
            Parameter("high", "greatest coefficient", default=1.0),
        ),
        data="batches of each task, without labels; forward and backward passes at every step",
        entry="adamerging.adamerge",
        base="needed",
        formula="θ = θ₀ + Σᵢ λᵢ τᵢ, by tensor or layer;  λ = argmin Σ_tasks E_x H(p(·|x; θ)), by Adam",
        reference="Yang et al., AdaMerging, arXiv 2310.02575",
    ),
)
