"""Task vectors pruned by activations: an entry counts by its size times that of the inputs it meets."""

import torch

from merging.registry import Measured, Parameter, tensor_method


@tensor_method(
    "wanda",
    Parameter("weight", "factor of this model's task vector", per_model=True),
    Parameter("density", "fraction of each row to keep", default=0.5, per_model=True, low=0.0, high=1.0),
    Parameter("lambda", "factor of the sum of task vectors", default=1.0),
    base="needed",
    measures="grams",
    data="documents of each model's task, without labels; forward passes only",
    taxon="sparsified",
    review="activation",
    formula="θ = θ₀ + λ Σᵢ wᵢ mᵢ∘τᵢ;  mᵢ: the entries of each row with the greatest |τᵢ| ‖xⱼ‖, x the inputs",
    reference="importance: Sun et al., A Simple and Effective Pruning Approach for LLMs, arXiv 2306.11695, eq. 1",
)
def wanda(
    vectors: torch.Tensor,
    measured: Measured | None,
    *,
    weight: list[float],
    density: list[float],
    lambda_: float = 1.0,
) -> torch.Tensor:
    """Task vectors (p, out, in) by the Gram matrices (p, in, in) of their inputs: (out, in).

    Rows are compared within themselves, as in the paper; equal entries count by their place. Tensors without Gram
    matrices, which are no linear layers' weights, are not pruned.
    """
    factors = vectors.new_tensor(weight).reshape(-1, *[1] * (vectors.dim() - 1))
    if measured is None:
        return lambda_ * (factors * vectors).sum(dim=0)
    norms = measured.values.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt().to(vectors.dtype)
    kept = torch.stack([_kept(*pair) for pair in zip(vectors.abs() * norms[:, None], density, strict=True)])
    return lambda_ * (factors * kept * vectors).sum(dim=0)


def _kept(importance: torch.Tensor, density: float) -> torch.Tensor:
    """Which entries (out, in) are among the most important of their row, as a mask."""
    count = round(density * importance.shape[1])
    order = importance.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(importance, dtype=torch.bool).scatter_(1, order[:, :count], value=True)
