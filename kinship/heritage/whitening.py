"""Distances in which every direction that a family changed in counts alike: what a model has of its own shows in them.

Two models trained on like data move along the same few directions, far, so that siblings are nearer to each other than
to their parent. What the order of batches and their noise add is small, but spread over all directions and each model's
own. So the differences of each matrix are whitened, ``A^(-1/2) D B^(-1/2)`` with A and B their second moments over rows
and over columns: the matrix normal law's Mahalanobis distance (Dawid, Biometrika 68, 1981).
"""

from collections.abc import Sequence

import numpy as np

from kinship.gram import Float64
from kinship.heritage.geometry import Geometry
from kinship.heritage.sampling import Float32, Sample, matrices_of

# Eigenvalues of the moments count as at least this part of their mean: smaller ones are rounding.
FLOOR = 1e-3


def whitened_distances(samples: Sequence[Sample], geometry: Geometry) -> Float64:
    """Squared distances (n, n) of the models of ``geometry``: the mean over the matrices that all have.

    Each matrix is scaled to a median of 1. Zero where two models hold the same numbers. Where no matrix is shared,
    plain distances. Cost: n times the elements sampled times their rows and columns.
    """
    count = geometry.squares.shape[1]
    parts = [_whitened(one.values) for one in matrices_of(samples, range(count))]
    known = [part for part in parts if part is not None]
    return np.where(geometry.total > 0, np.mean(known, 0), 0.0) if known else geometry.total


def _whitened(values: Float32) -> Float64 | None:
    """Of one matrix (n, rows, columns); None where it is the same in most models."""
    away = values.astype(np.float64)
    away -= away.mean(0)
    rows = np.einsum("nij,nkj->ik", away, away, optimize=True)
    columns = np.einsum("nij,nik->jk", away, away, optimize=True)
    if not rows.any():
        return None
    flat = (_inverse_root(rows).T @ away @ _inverse_root(columns)).reshape(len(away), -1)
    squares = np.square(flat).sum(1)
    apart: Float64 = np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0.0)
    middle = np.median(apart)
    return apart / middle if middle > 0 else None


def _inverse_root(moments: Float64) -> Float64:
    sizes, directions = np.linalg.eigh(moments)
    root: Float64 = directions / np.sqrt(np.maximum(sizes, FLOOR * sizes.mean()))
    return root
