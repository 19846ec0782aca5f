"""Families: models of one initialisation correlate, unrelated ones do not.

Networks initialised and trained apart are the same in law when the hidden units of one are renumbered (Zhu et al.,
arXiv 2502.12292): a correlation that is more than renumbering gives by chance is descent. Of two matrices A, B (m, n)
with all row and column means taken out, renumbering the columns of B at random gives ``<A, B>`` the mean zero and the
variance ``<A A^T, B B^T> / (n - 1)``, renumbering rows the like, exactly; the larger is taken. Matrices of one network
share units, so they are not taken for independent: the error of the mean correlation is the mean of their errors.
"""

import math
from collections.abc import Iterable

import networkx as nx
import numpy as np

from kinship.gram import Float64
from kinship.heritage.sampling import Sample

# Links are correlations of at least so many standard errors, and at least so much: below it, descent is no use.
ERRORS, LEAST = 6.0, 0.03
FALSE_LINK_RATE = math.erfc(ERRORS / math.sqrt(2)) / 2


def correlations(samples: Iterable[Sample], count: int) -> tuple[Float64, Float64]:
    """Mean correlation (n, n) of the matrices that two of ``count`` models share, and its standard error (n, n).

    Where two share none: 0 and infinity. Cost: n^2 times the elements sampled, in fp32; memory: that of one sample of
    all models, a few times.
    """
    total, error, shared = (np.zeros((count, count)) for _ in range(3))
    for one in samples:
        owners = np.array(one.owners)
        rows, columns = one.values.shape[1:]
        if min(rows, columns) < 2:
            continue
        values = one.values - one.values.mean(1, keepdims=True)
        values -= values.mean(2, keepdims=True)
        norms = np.linalg.norm(values, axis=(1, 2))
        varied = norms > 0
        owners, values = owners[varied], values[varied] / norms[varied, None, None]
        if len(values) < 2:
            continue
        flat = values.reshape(len(values), -1)
        by_rows = (values @ values.transpose(0, 2, 1)).reshape(len(values), -1)
        by_columns = (values.transpose(0, 2, 1) @ values).reshape(len(values), -1)
        variance = np.maximum(by_rows @ by_rows.T / (columns - 1), by_columns @ by_columns.T / (rows - 1))
        place = np.ix_(owners, owners)
        total[place] += flat @ flat.T
        error[place] += np.sqrt(variance)
        shared[place] += 1
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(shared > 0, total / shared, 0.0), np.where(shared > 0, error / shared, np.inf)


def families(correlation: Float64, error: Float64, errors: float = ERRORS, least: float = LEAST) -> list[list[int]]:
    """Groups of models linked by correlations beyond chance, directly or through others; the largest first.

    >>> families(np.array([[1, 0.9, 0.01], [0.9, 1, 0], [0.01, 0, 1]]), np.full((3, 3), 0.01))
    [[0, 1], [2]]
    """
    linked = correlation > np.maximum(errors * error, least)
    return in_order(nx.connected_components(nx.from_numpy_array(linked)))


def in_order(groups: Iterable[Iterable[int]]) -> list[list[int]]:
    """Groups by size, the largest first, then by their first member."""
    return sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group))
