"""A model of the scores: a Gaussian process with a noise of its own for every observation."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from kinship.arrays import Float64

LENGTHS = (0.15, 5.0)  # of the kernel, in coefficients: from a small step to more than the whole span
VARIANCES = (0.1, 50.0)  # of the scores, which are put to mean 0 and deviation 1
JITTER = 1e-6

Features = Callable[[Float64], Float64]


@dataclass(frozen=True)
class Surrogate:
    """Scores as a Gaussian process over points of the span (m, n), Matern 5/2 in ``features`` of them.

    Isotropic: what matters is the distance of two points' features alone. Rasmussen & Williams, Gaussian Processes for
    Machine Learning (2006), algorithm 2.1 and equation 5.8 (length and variance by maximal marginal likelihood), as
    scikit-learn does them. Cost m^3.
    """

    features: Features
    points: Float64
    values: Float64
    noise: Float64
    centre: float
    spread: float
    process: Any

    @classmethod
    def fit(cls, points: Float64, values: Float64, noise: Float64, features: Features) -> Self:
        """values: (m,) scores. noise: (m,) their standard deviations, in the scores' unit."""
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern

        kernel = ConstantKernel(1.0, VARIANCES) * Matern(1.0, LENGTHS, nu=2.5)
        centre, spread = float(values.mean()), max(float(values.std()), 1e-9)
        return cls._conditioned(features, points, values, noise, centre, spread, kernel, "fmin_l_bfgs_b")

    @classmethod
    def _conditioned(
        cls,
        features: Features,
        points: Float64,
        values: Float64,
        noise: Float64,
        centre: float,
        spread: float,
        kernel: Any,
        optimizer: str | None,
    ) -> Self:
        from sklearn.gaussian_process import GaussianProcessRegressor

        process = GaussianProcessRegressor(kernel, alpha=(noise / spread) ** 2 + JITTER, optimizer=optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a length lies at its bound: bounds are meant
            process.fit(features(points), (values - centre) / spread)
        return cls(features, points, values, noise, centre, spread, process)

    def believing(self, point: Float64) -> Self:
        """The process as if ``point`` (n,) had scored what is expected of it, so that a batch does not gather at one
        place (kriging believer: Ginsbourger et al. 2010). Length and variance stay.
        """
        mean, _ = self.predict(point[None])
        return self._conditioned(
            self.features,
            np.vstack([self.points, point]),
            np.append(self.values, mean),
            np.append(self.noise, self.noise.mean()),
            self.centre,
            self.spread,
            self.process.kernel_,
            None,
        )

    def predict(self, points: Float64) -> tuple[Float64, Float64]:
        """Expected scores (m,) and their standard deviations (m,), without observation noise."""
        mean, deviation = self.process.predict(self.features(points), return_std=True)
        return mean * self.spread + self.centre, deviation * self.spread

    def expected(self, points: Float64) -> Float64:
        """Expected scores (m,) alone."""
        return self.predict(points)[0]

    def expected_improvement(self, points: Float64) -> Float64:
        """How much better than the best expected score so far (Jones et al. 1998, equation 15); noise is averaged out
        by comparing with the expected scores at the points observed, not with the scores seen.
        """
        from scipy.special import ndtr

        best = self.predict(self.points)[0].max()
        mean, deviation = self.predict(points)
        deviation = np.maximum(deviation, 1e-12)
        z = (mean - best) / deviation
        improvement: Float64 = (mean - best) * ndtr(z) + deviation * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
        return improvement
