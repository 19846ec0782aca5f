"""Spherical linear interpolation of two models."""

import math

from kinship.arrays import Float64
from merging.registry import Combination, Parameter, span_method

LERP_ABOVE = 0.9995  # |cos| above which the arc is a line, as in mergekit


@span_method(
    "slerp",
    Parameter("t", "0 gives the base model, 1 the other"),
    min_models=2,
    max_models=2,
    base="merged",
    needs_products=True,
    formula="θ = (sin((1-t)φ) θ₀ + sin(tφ) θ₁) / sin φ;  φ = ∠(θ₀, θ₁)",
    reference="Shoemake, Animating Rotation with Quaternion Curves, SIGGRAPH 1985",
)
def slerp(products: Float64, t: float) -> Combination:
    """SLERP of two tensors whose inner products are (2, 2): ``(sin((1-t)θ) a + sin(tθ) b) / sin θ``.

    θ is the angle between the flattened tensors (Shoemake 1985); the coefficients apply to the tensors themselves, not
    to their directions, and nearly (anti)parallel tensors are interpolated linearly, both as in mergekit.

    >>> import numpy as np
    >>> [round(c, 6) for c in slerp(np.eye(2), 0.5).models]
    [0.707107, 0.707107]
    """
    norms = [math.sqrt(max(float(products[i, i]), 0.0)) for i in (0, 1)]
    one, other = (norm if norm > 1e-8 else 1.0 for norm in norms)
    cosine = max(-1.0, min(1.0, float(products[0, 1]) / (one * other)))
    if abs(cosine) > LERP_ABOVE:
        return Combination(0.0, (1.0 - t, t))
    theta = math.acos(cosine)
    sine = math.sin(theta)
    return Combination(0.0, (math.sin((1.0 - t) * theta) / sine, math.sin(t * theta) / sine))
