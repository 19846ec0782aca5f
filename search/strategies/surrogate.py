"""A model of the scores: a Gaussian process with a noise of its own for every observation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from kinship.gram import Float64

# Logarithms of what is fitted, as mean and deviation of a normal prior: variance and length over the features, then
# variance and length over the scale. Lengths are in coefficients (a founder lies at 1 from the base), variances of
# scores put to deviation 1.
PRIOR_MEAN = np.array([-1.0, 0.0, 0.0, 0.0])
PRIOR_DEVIATION = np.array([1.0, 0.25, 1.0, 0.25])
JITTER = 1e-6

Features = Callable[[Float64], Float64]
"""Points (m, n) to what distances are taken of (m, k)."""
_Places = tuple[Float64, Float64]


@dataclass(frozen=True)
class Surrogate:
    """Scores as a Gaussian process over points of the span (m, n), with two kinds of likeness: Matern 5/2 in the
    distance of ``features``, and Matern 5/2 in the scale (the sum of the coefficients) alone, whatever the weights.

    Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), algorithm 2.1, with variances and lengths of
    maximal posterior density (section 5.4.1): few scores would else be explained by lengths of nothing or of
    everything. Scores are put to mean 0 and deviation 1. Cost m^3.
    """

    features: Features
    points: Float64
    values: Float64
    noise: Float64
    centre: float
    spread: float
    theta: Float64

    @classmethod
    def fit(cls, points: Float64, values: Float64, noise: Float64, features: Features) -> Self:
        """values: (m,) scores. noise: (m,) their standard deviations, in the scores' unit."""
        from scipy.optimize import minimize

        centre, spread = float(values.mean()), max(float(values.std()), 1e-9)
        seen, places, diagonal = (values - centre) / spread, _places(points, features), _diagonal(noise, spread)

        def loss(theta: Float64) -> float:
            lower = np.linalg.cholesky(_covariance(theta, places, places) + diagonal)
            whitened = np.linalg.solve(lower, seen)
            prior = ((theta - PRIOR_MEAN) / PRIOR_DEVIATION) ** 2
            return float(0.5 * whitened @ whitened + np.log(np.diag(lower)).sum() + 0.5 * prior.sum())

        width = 3 * PRIOR_DEVIATION
        bounds = list(zip(PRIOR_MEAN - width, PRIOR_MEAN + width, strict=True))
        theta = minimize(loss, PRIOR_MEAN, method="L-BFGS-B", bounds=bounds).x
        return cls(features, points, values, noise, centre, spread, theta)

    @cached_property
    def _inverse(self) -> Float64:
        """Of the covariance of what was observed (m, m)."""
        covariance = _covariance(self.theta, self._places, self._places) + _diagonal(self.noise, self.spread)
        return np.asarray(np.linalg.inv(covariance), dtype=np.float64)

    @cached_property
    def _places(self) -> _Places:
        return _places(self.points, self.features)

    def believing(self, point: Float64) -> Self:
        """The process as if ``point`` (n,) had scored what is expected of it, so that a batch does not gather at one
        place (kriging believer: Ginsbourger et al. 2010). Variances and lengths stay.
        """
        return replace(
            self,
            points=np.vstack([self.points, point]),
            values=np.append(self.values, self.expected(point[None])),
            noise=np.append(self.noise, self.noise.mean()),
        )

    def predict(self, points: Float64) -> tuple[Float64, Float64]:
        """Expected scores (m,) and their standard deviations (m,), without observation noise."""
        across = _covariance(self.theta, _places(points, self.features), self._places)
        mean = across @ self._inverse @ ((self.values - self.centre) / self.spread)
        before = float(np.exp(self.theta[[0, 2]]).sum())
        variance = before - ((across @ self._inverse) * across).sum(axis=1)
        return mean * self.spread + self.centre, np.sqrt(np.maximum(variance, 0.0)) * self.spread

    def expected(self, points: Float64) -> Float64:
        """Expected scores (m,) alone."""
        return self.predict(points)[0]

    def expected_improvement(self, points: Float64) -> Float64:
        """How much better than the best expected score so far (Jones et al. 1998, equation 15); noise is averaged out
        by comparing with the expected scores at the points observed, not with the scores seen.
        """
        from scipy.special import ndtr

        best = self.expected(self.points).max()
        mean, deviation = self.predict(points)
        deviation = np.maximum(deviation, 1e-12)
        z = (mean - best) / deviation
        improvement: Float64 = (mean - best) * ndtr(z) + deviation * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
        return improvement


def _places(points: Float64, features: Features) -> _Places:
    """Where points (m, n) lie: their features (m, k), and their scales (m, 1)."""
    return features(points), points.sum(axis=1, keepdims=True)


def _diagonal(noise: Float64, spread: float) -> Float64:
    """The noise of observations (m,) as a covariance (m, m), in units of the scores' deviation."""
    found: Float64 = np.diag((noise / spread) ** 2 + JITTER)
    return found


def _covariance(theta: Float64, one: _Places, other: _Places) -> Float64:
    """Between two lists of places."""
    from scipy.spatial.distance import cdist

    variances, lengths = np.exp(theta[[0, 2]]), np.exp(theta[[1, 3]])
    found: Float64 = sum(
        variance * _matern(cdist(here, there) / length)
        for variance, length, here, there in zip(variances, lengths, one, other, strict=True)
    )
    return found


def _matern(distance: Float64) -> Float64:
    """Rasmussen & Williams, equation 4.17 with nu = 5/2, for lengths of 1."""
    scaled = np.sqrt(5.0) * distance
    found: Float64 = (1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled)
    return found
