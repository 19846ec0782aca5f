"""Karcher mean: the point of the sphere with the least squared angles to several models."""

import math

import numpy as np

from kinship.arrays import Float64
from merging.registry import Combination, Parameter, span_method


@span_method(
    "karcher",
    Parameter("max_iter", "steps at most", default=10, kind="integer", low=0),
    Parameter("tol", "stop at a step this short; shorter inputs have no direction", default=1e-5, low=0.0),
    min_models=2,
    needs_products=True,
    taxon="weighted",
    formula="θ = mean(|θᵢ|) argmin_{|u|=1} Σᵢ ∠(u, θᵢ)²",
    reference="Karcher, Riemannian center of mass and mollifier smoothing, CPAM 1977",
)
def karcher(products: Float64, max_iter: int = 10, tol: float = 1e-5) -> Combination:
    """Riemannian mean of the directions of p tensors, inner products (p, p), as long as their mean norm.

    Fixed-point iteration in the tangent space, from the normalised mean of directions, on coefficients alone:
    ``u <- exp_u(mean_i log_u(u_i))`` with ``log_u(v) = (v - cos u) angle / sin``. ``max_iter`` and ``tol`` end
    it, as in mergekit. Inputs no longer than ``tol`` take no part in the direction but count in the mean norm; where
    that is all of them, the result is their mean. Where directions balance out, the iteration starts at the first.

    >>> [round(c, 6) for c in karcher(np.eye(2)).models]
    [0.707107, 0.707107]
    """
    norms = np.sqrt(np.maximum(np.diagonal(products), 0.0))
    inside = np.flatnonzero(norms > tol)
    if len(inside) == 0:
        return Combination(0.0, (1.0 / len(norms),) * len(norms))
    cosines = products[np.ix_(inside, inside)] / np.outer(norms[inside], norms[inside])
    count = len(inside)

    def length(of: Float64) -> float:
        return math.sqrt(max(float(of @ cosines @ of), 0.0))

    mean = np.full(count, 1.0 / count)  # coefficients on the unit vectors, here and below
    size = length(mean)
    mean = mean / size if size > tol else np.eye(count)[0]
    for _ in range(max_iter):
        along = np.clip(cosines @ mean, -1.0, 1.0)
        angles = np.arccos(along)
        sines = np.sqrt(1.0 - along**2)
        # Parallel directions are no step away, opposite ones in no direction.
        factors = np.where(sines > 1e-12, angles / np.maximum(sines, 1e-12), 0.0) / count
        step = factors - float(factors @ along) * mean
        size = length(step)
        if size <= tol:
            break
        mean = math.cos(size) * mean + math.sin(size) / size * step
        mean /= length(mean)
    coefficients = np.zeros(len(norms))
    coefficients[inside] = mean / norms[inside] * norms.mean()
    return Combination(0.0, tuple(coefficients.tolist()))
