"""The metrics that follow from the Gram matrix of task vectors (Hu et al., arXiv 2410.12613, section 3.2)."""

from collections.abc import Callable

import numpy as np

from kinship.arrays import Float64

# A row whose centred squared norm is this small a part of its squared norm is constant: centring leaves nothing but
# rounding of the fp32 products (measured 1e-6 with eight vector lanes, 2e-5 with one sum over 4,096 elements).
CONSTANT_BELOW = 3e-5

Kernel = Callable[[Float64, Float64, float], Float64]


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
