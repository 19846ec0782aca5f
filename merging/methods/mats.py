"""MaTS: models matched in the subspaces that matter to each task, by conjugate gradients on input covariances."""

from collections.abc import Sequence

import torch

from merging.data_driven.fisher import average, per_model, require_weights
from merging.registry import Measured, Parameter, tensor_method

# Residuals of this size, relative to the first, are rounding of float64.
_CONVERGED = 1e-13


@tensor_method(
    "mats",
    Parameter("weight", "factor of this model", default=1.0, per_model=True, low=0.0),
    Parameter("iterations", "steps of the conjugate gradient from the average", default=10, kind="integer", low=0),
    measures="grams",
    data="documents of each model's task, without labels; forward passes only",
    taxon="weighted",
    review="optimisation",
    formula="W (Σᵢ wᵢ Gᵢ) = Σᵢ wᵢ Wᵢ Gᵢ,  Gᵢ = XᵢᵀXᵢ, by so many steps of conjugate gradients from the average",
    reference="Tam et al., Merging by Matching Models in Task Parameter Subspaces, arXiv 2312.04339",
)
def mats(
    vectors: torch.Tensor, measured: Measured | None, *, weight: list[float], iterations: int = 10
) -> torch.Tensor:
    """Linear layers' weights (p, out, in) by the Gram matrices (p, in, in) of their inputs: (out, in).

    What is no linear layer's weight, or saw no data, is averaged: (*shape).
    """
    factors = require_weights(weight, len(vectors))
    if measured is None:
        return average(vectors, factors)
    return matched(vectors, measured.values, factors, iterations)


def matched(vectors: torch.Tensor, grams: torch.Tensor, weights: Sequence[float], iterations: int = 10) -> torch.Tensor:
    """``iterations`` steps of conjugate gradients for ``W sum_i w_i G_i = sum_i w_i W_i G_i``, from the average.

    vectors: (p, out, in); grams: (p, in, in); returns (out, in) (Tam et al., arXiv 2312.04339, eq. 6, with the inputs'
    covariances for C_i). It is RegMean's system without shrinkage, whose closed form is reached after ``in`` steps at
    the latest; fewer stay nearer to the average where inputs vary little. Few inputs leave the system singular, which
    this does not mind: what no data reached stays at the average. float64; cost: 2 out in^2 a step.

    >>> inputs = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> matched(torch.tensor([[[1.0, 1.0]], [[3.0, 6.0]]]), inputs.mT @ inputs, [1.0, 1.0])
    tensor([[2., 2.]])
    """
    wide = vectors.double()
    products = grams.double() * per_model(weights, grams.double())
    total = products.sum(dim=0)
    found = average(wide, weights)
    # For the difference from the average, which loses no digits where models are near each other.
    residual = torch.einsum("poi,pij->oj", wide - found, products)
    direction, size = residual, residual.square().sum()
    first = size
    for _ in range(iterations):
        if size <= first * _CONVERGED**2:
            break
        mapped = direction @ total
        step = size / (direction * mapped).sum()
        found = found + step * direction
        residual = residual - step * mapped
        size, before = residual.square().sum(), size
        direction = residual + (size / before) * direction
    return found.to(vectors.dtype)
