"""Distances of close pairs, which as differences of large inner products lose their digits: measured directly.

Where the distance of a pair was measured, their inner product is set to what it implies: see `implied_product`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float64
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.measures.alignment import Alignment
from kinship.measures.gram import GramTable, gram_table

# Twice the inner product as a part of the squares' sum, above which less than six digits of a distance are left.
CLOSE = 0.97


def are_close(products: Float64, squares: Float64) -> NDArray[np.bool_]:
    """Whether pairs are too close for their inner ``products``; ``squares``: |a|^2 + |b|^2 of each. Elementwise."""
    return np.asarray(2 * products > CLOSE * squares)


def implied_product(squares: Float64, gaps: Float64) -> Float64:
    """<a, b> = (|a|^2 + |b|^2 - |a - b|^2) / 2, from ``squares`` (see `are_close`) and ``gaps``. Elementwise.

    >>> float(implied_product(np.float64(25 + 4), np.float64(9)))
    10.0
    """
    return (squares - gaps) / 2


def measure_close_pairs(table: GramTable, models: Sequence[Checkpoint], alignment: Alignment) -> None:
    """Make ``table`` exact about the distances of pairs that are close as a whole: their weights are read once more."""
    gram = table.total()[0][1:, 1:]
    norms = np.diagonal(gram)
    closeness = are_close(gram, norms[:, None] + norms)
    for one, model in enumerate(models):
        close = np.flatnonzero(closeness[one, :one]).tolist()
        if close:
            differences = gram_table(model, [models[other] for other in close], alignment)
            for place, other in enumerate(close, 1):
                i, j = one + 1, other + 1
                squares = table.grams[:, i, i] + table.grams[:, j, j]
                table.grams[:, i, j] = table.grams[:, j, i] = implied_product(
                    squares, differences.grams[:, place, place]
                )
