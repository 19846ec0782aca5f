"""Barycentre on the sphere of several models or of their task vectors."""

import math
from collections.abc import Sequence

import numpy as np

from kinship.arrays import Float64
from kinship.errors import InvalidConfig
from merging.registry import Combination, Parameter, span_method

VANISHES = 1e-5  # length of a mean direction, of unit vectors, that the rounding of inner products leaves no digit of


@span_method(
    "multislerp",
    Parameter("weight", "share of this model", per_model=True),
    Parameter("normalize_weights", "divide the weights by their sum", default=True, kind="boolean"),
    Parameter("eps", "added to norms; shorter mean directions count as none", default=1e-8, low=0.0),
    base="optional",
    needs_products=True,
    taxon="weighted",
    formula="τ = (Σᵢ wᵢ |τᵢ|) μ / |μ|;  μ = Σᵢ wᵢ τᵢ / |τᵢ|",
    reference="Goddard, multi-SLERP, 2025; mergekit",
)
def multislerp(
    products: Float64,
    weight: Sequence[float],
    normalize_weights: bool = True,
    eps: float = 1e-8,
    has_base: bool = False,
) -> Combination:
    """Weighted mean direction of p vectors whose inner products are (p, p), as long as their weighted mean norm.

    The method projects the directions on the tangent space of the sphere at their weighted mean direction, averages
    them there and goes back. Orthogonal projections, which mergekit takes, average to zero at just that point, so the
    point itself is the answer. As in mergekit one model is left as it is, and two whose mean direction vanishes give
    their weighted sum; more raise `InvalidConfig`, as do weights that sum to zero but are to be normalised.

    >>> multislerp(np.diag([4.0, 4.0]), [1, 1], eps=0.0).models
    (0.7071067811865475, 0.7071067811865475)
    """
    count = len(products)
    if count == 1:
        return Combination.of_vectors([1.0], has_base)
    total = sum(weight) if normalize_weights else 1.0
    if abs(total) < 1e-12:
        raise InvalidConfig(
            "The weights of a multislerp merge sum to zero.", hint="Set normalize_weights: false to mean it."
        )
    weights = np.array(weight) / total
    norms = np.sqrt(np.maximum(np.diagonal(products), 0.0))
    mean = weights / (norms + max(eps, 1e-300))  # coefficients of the mean direction
    length = math.sqrt(max(float(mean @ products @ mean), 0.0))
    if length <= max(eps, VANISHES * float(np.abs(weights).sum())):
        if count == 2:
            return Combination.of_vectors(weights.tolist(), has_base)
        raise InvalidConfig(
            f"The directions of {count} inputs of a multislerp merge balance out to zero"
            f"{', or no model differs from the base' if has_base else ''}.",
            hint="Change the weights, leave out base_model, or use linear or task_arithmetic.",
        )
    return Combination.of_vectors((mean / length * float(weights @ norms)).tolist(), has_base)
