"""Representation Surgery: a head for each task, kept beside a merge, mends what scoring sees; a recipe's `surgery:`."""

from merging.registry import Parameter, assembled_method

assembled_method(
    "surgery",
    Parameter("rank", "of a head; 0 changes nothing", default=16, kind="integer", low=0),
    Parameter("steps", "steps of Adam", default=500, kind="integer", low=0),
    Parameter("rate", "learning rate", default=1e-3, low=0.0),
    module="merging.beside.making",
    taxon="calibrated",
    formula="z' = z - U ReLU(D z);  D, U = argmin Σ_x |z'(x) - zᵢ(x)|₁, z and zᵢ of the merge and of model i",
    reference="Yang et al., Representation Surgery for Multi-Task Model Merging, arXiv 2402.02705",
    data="documents of each model's task, without labels; forward passes only",
)
