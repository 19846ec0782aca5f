"""Dendrograms: kinship as a hierarchy of clusters."""

import numpy as np

from kinship.errors import InvalidConfig
from kinship.gram import Float64
from kinship.matrix import KinshipMatrix


def distances(matrix: KinshipMatrix) -> Float64:
    """Distances (n, n) for clustering: 1 - similarity, or the metric itself where it is a distance.

    Models without direction (NaN) count as farthest from all others.
    """
    values = 1.0 - matrix.values if matrix.spec.higher_is_closer else matrix.values.copy()
    farthest = np.nanmax(values, initial=1.0)
    values = np.where(np.isnan(values), farthest, values)
    np.fill_diagonal(values, 0.0)
    return np.clip((values + values.T) / 2, 0.0, None)


def cluster(matrix: KinshipMatrix) -> Float64:
    """Average linkage (UPGMA) in SciPy's format (n-1, 4), leaves in optimal order (Bar-Joseph et al. 2001).

    Time O(n^2), the ordering O(n^3). Raises `InvalidConfig` for fewer than two models.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    if len(matrix.ids) < 2:
        raise InvalidConfig("A dendrogram needs at least two models.", hint="Give more models.")
    result: Float64 = linkage(squareform(distances(matrix), checks=False), "average", optimal_ordering=True)
    return result


def leaf_order(matrix: KinshipMatrix) -> list[int]:
    """Indices of the models in the order in which a dendrogram shows them."""
    from scipy.cluster.hierarchy import leaves_list

    if len(matrix.ids) < 2:
        return list(range(len(matrix.ids)))
    return [int(index) for index in leaves_list(cluster(matrix))]
