"""The two-parameter logistic item-response model, fitted by maximum a posteriori.

P(model m is right on document i) = sigmoid(a_i (theta_m - b_i)): ability theta, difficulty b, discrimination a > 0
(Birnbaum 1968; for the evaluation of language models Polo et al., arXiv 2402.14992; for that of merges MERGE3, arXiv
2502.10436). With some ten models the parameters of a document are hardly identifiable: the priors theta ~ N(0, 1),
log a ~ N(0, 0.5²), b ~ N(0, 2²) keep them in bounds.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from kinship.arrays import Float64

ABILITY, DISCRIMINATION, DIFFICULTY = 1.0, 0.5, 2.0
"""Standard deviations of the priors of theta, log a and b."""


@dataclass(frozen=True)
class ItemResponse:
    """A fitted model. discrimination, difficulty: (N,) float64 of the documents; ability: (m,) of the models fitted."""

    discrimination: Float64
    difficulty: Float64
    ability: Float64

    def probability(self, ability: float) -> Float64:
        """Chance (N,) that a model of this ability is right on each document."""
        return np.asarray(expit(self.discrimination * (ability - self.difficulty)))

    def information(self, ability: float) -> Float64:
        """Fisher information (N,) of each document about an ability: a² p (1 - p)."""
        chance = self.probability(ability)
        return self.discrimination**2 * chance * (1 - chance)

    def ability_of(self, rows: npt.NDArray[np.intp], right: Float64) -> tuple[float, float]:
        """The most probable ability of a model given its results (n,) on the documents in ``rows``, and its error."""
        a, b = self.discrimination[rows], self.difficulty[rows]

        def loss(theta: Float64) -> tuple[float, Float64]:
            logit = a * (theta[0] - b)
            value = float((np.logaddexp(0, logit) - right * logit).sum() + theta[0] ** 2 / (2 * ABILITY**2))
            return value, np.array([(a * (expit(logit) - right)).sum() + theta[0] / ABILITY**2])

        ability = float(minimize(loss, np.zeros(1), jac=True, method="L-BFGS-B").x[0])
        precision = 1 / ABILITY**2 + float(self.information(ability)[rows].sum())
        return ability, precision**-0.5


def fit_item_response(right: Float64) -> ItemResponse:
    """Fit to results (N documents, m models) of 0 or 1. Deterministic: from abilities by mean, by L-BFGS.

    Cost: some hundred passes over the table. Raises ValueError for results other than 0 and 1.
    """
    if not is_binary(right):
        raise ValueError("the item-response model is about results of 0 or 1")
    documents = len(right)
    mean = np.clip(right.mean(axis=0), 0.02, 0.98)
    start = np.concatenate([np.zeros(2 * documents), np.log(mean / (1 - mean))])

    def loss(parameters: Float64) -> tuple[float, Float64]:
        log_a, b, theta = np.split(parameters, [documents, 2 * documents])
        a = np.exp(log_a)
        offset = theta - b[:, None]
        logit = a[:, None] * offset
        error = expit(logit) - right
        value = (np.logaddexp(0, logit) - right * logit).sum()
        value += ((log_a / DISCRIMINATION) ** 2).sum() / 2 + ((b / DIFFICULTY) ** 2).sum() / 2
        value += ((theta / ABILITY) ** 2).sum() / 2
        slope_a = (error * logit).sum(axis=1) + log_a / DISCRIMINATION**2
        slope_b = -(error * a[:, None]).sum(axis=1) + b / DIFFICULTY**2
        slope_theta = a @ error + theta / ABILITY**2
        return float(value), np.concatenate([slope_a, slope_b, slope_theta])

    found: Any = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    log_a, b, theta = np.split(found.x, [documents, 2 * documents])
    return ItemResponse(np.exp(log_a), b, theta)


def is_binary(results: Float64) -> bool:
    """Whether all results are 0 or 1, as the item-response model needs."""
    return bool(np.isin(results, (0.0, 1.0)).all())
