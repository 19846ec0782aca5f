"""Similarity of task vectors, from their Gram matrix (Hu et al., arXiv 2410.12613, section 3.2)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kinship.arrays import Float64
from kinship.errors import InvalidConfig

# A row whose centred squared norm is this small a part of its squared norm is constant: centring leaves nothing but
# rounding of the fp32 products (measured 1e-6 with eight vector lanes, 2e-5 with one sum over 4,096 elements).
CONSTANT_BELOW = 3e-5

Kernel = Callable[[Float64, Float64, float], Float64]


@dataclass(frozen=True)
class Metric:
    """A metric and its direction: ``higher_is_closer`` is true of similarities, false of distances.

    ``kernel`` computes it from a Gram matrix; None where it does not follow from one, and the weights are read for it.
    ``unrelated``: what it is between unrelated models, where that is known.
    """

    name: str
    label: str
    higher_is_closer: bool
    kernel: Kernel | None = None
    unrelated: float | None = None

    def closeness(self, value: float) -> float:
        """A number that grows with kinship, whatever the direction of the metric."""
        return value if self.higher_is_closer else -value


def pcc(gram: Float64, sums: Float64, count: float) -> Float64:
    """Pearson correlation of the rows whose Gram is (R, R), sums (R,) and length ``count``; NaN for constant rows.

    >>> x = np.array([[1.0, 2, 3], [3.0, 2, 1]])
    >>> pcc(x @ x.T, x.sum(axis=1), 3.0).round(6).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    centred = gram - np.outer(sums, sums) / count
    constant = np.diagonal(centred) <= CONSTANT_BELOW * np.diagonal(gram)
    centred[constant] = 0.0
    centred[:, constant] = 0.0
    return cosine(centred, sums, count)


def cosine(gram: Float64, sums: Float64, count: float) -> Float64:
    """Signed cosine of the angle between rows (R, R); NaN for rows of zeros."""
    norms = np.sqrt(np.clip(np.diagonal(gram), 0.0, None))
    with np.errstate(divide="ignore", invalid="ignore"):
        values: Float64 = gram / np.outer(norms, norms)
    values = np.clip(values, -1.0, 1.0)
    diagonal = np.where(norms > 0, 1.0, np.nan)
    np.fill_diagonal(values, diagonal)
    return values


def euclidean(gram: Float64, sums: Float64, count: float) -> Float64:
    """Euclidean distance between rows (R, R)."""
    squares = np.diagonal(gram)
    values: Float64 = np.sqrt(np.clip(squares[:, None] + squares[None, :] - 2 * gram, 0.0, None))
    np.fill_diagonal(values, 0.0)
    return values


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("pcc", "Pearson correlation", True, pcc, unrelated=0.0),
        Metric("cosine", "cosine similarity", True, cosine, unrelated=0.0),
        Metric("euclidean", "Euclidean distance", False, euclidean),
        Metric("sign", "sign agreement", True, unrelated=0.5),
        Metric("subspace", "subspace overlap", True),
    )
}


def get_metric(name: str) -> Metric:
    """The metric called ``name``; raises `InvalidConfig` naming those there are."""
    if name not in METRICS:
        raise InvalidConfig(f"There is no metric {name!r}.", hint=f"Use one of: {', '.join(METRICS)}.")
    return METRICS[name]


def gram_kernel(name: str) -> Kernel:
    """How the metric called ``name`` follows from a Gram matrix; raises `InvalidConfig` where it does not."""
    kernel = get_metric(name).kernel
    if kernel is None:
        follow = ", ".join(metric.name for metric in METRICS.values() if metric.kernel)
        raise InvalidConfig(f"{name} does not follow from inner products.", hint=f"Use one of: {follow}.")
    return kernel
