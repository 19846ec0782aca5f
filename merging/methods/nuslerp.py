"""Spherical interpolation of two models or of their task vectors, whole or row by row."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kinship.arrays import Float64
from merging.kernels.rows import combine, line_products
from merging.registry import Combination, Parameter, span_method

if TYPE_CHECKING:
    import torch

LINE_WITHIN = 2.0**-25  # of a cosine of 1 or -1, which fp32 would round it to


def arc(products: Float64, weight: Sequence[float]) -> Float64:
    """Coefficients (.., 2) of the slerp of pairs of vectors whose inner products are (.., 2, 2)."""
    total = sum(weight)
    t = weight[1] / total if abs(total) >= 1e-6 else 0.5
    norms = np.sqrt(np.maximum(np.diagonal(products, axis1=-2, axis2=-1), 0.0))
    norms = np.maximum(norms, 1e-8)
    cosine = np.clip(products[..., 0, 1] / (norms[..., 0] * norms[..., 1]), -1.0, 1.0)
    line = 1.0 - np.abs(cosine) < LINE_WITHIN
    theta = np.arccos(np.where(line, 0.0, cosine))
    sine = np.sin(theta)
    return np.stack(
        [np.where(line, 1.0 - t, np.sin((1.0 - t) * theta) / sine), np.where(line, t, np.sin(t * theta) / sine)], -1
    )


def nuslerp_lines(
    vectors: "torch.Tensor",
    *,
    weight: Sequence[float],
    nuslerp_row_wise: bool = False,
    nuslerp_flatten: bool,
    has_base: bool = False,
) -> "torch.Tensor":
    """NuSLERP of each line of (2, \\*shape) fp32 apart: (\\*shape) fp32.

    Lines lie along the first dimension with ``nuslerp_row_wise``, else along the last: mergekit's names are the other
    way round from what one expects. A vector is one line. Costs three passes and no more memory than the result.
    """
    axis = 0 if nuslerp_row_wise else -1
    return combine(vectors, arc(line_products(vectors, axis), weight), axis)


@span_method(
    "nuslerp",
    Parameter("weight", "share of this model: t is the second's part of the sum", per_model=True),
    Parameter("nuslerp_flatten", "treat each tensor as one vector", default=True, kind="boolean"),
    Parameter("nuslerp_row_wise", "lines along the first dimension, not the last", default=False, kind="boolean"),
    merge=nuslerp_lines,
    outside_span=lambda values: not values["nuslerp_flatten"],
    min_models=2,
    max_models=2,
    base="optional",
    needs_products=True,
    taxon="weighted",
    formula="τ = (sin((1-t)φ) τ₁ + sin(tφ) τ₂) / sin φ;  t = w₂ / (w₁ + w₂),  φ = ∠(τ₁, τ₂)",
    reference="Shoemake, Animating Rotation with Quaternion Curves, SIGGRAPH 1985; mergekit",
)
def nuslerp(
    products: Float64,
    weight: Sequence[float],
    nuslerp_flatten: bool = True,
    nuslerp_row_wise: bool = False,
    has_base: bool = False,
) -> Combination:
    """SLERP of two vectors whose inner products are (2, 2), at t = w2 / (w1 + w2); with a base, of task vectors.

    As in mergekit: t is 0.5 where the weights sum to zero (within 1e-6), coefficients apply to the vectors as long as
    they are, and vectors that fp32 would call parallel or opposite are interpolated linearly; the arc between opposite
    ones is anyone's choice.

    >>> [round(c, 6) for c in nuslerp(np.eye(2), [1, 1]).models]
    [0.707107, 0.707107]
    """
    return Combination.of_vectors(arc(products, weight).tolist(), has_base)
