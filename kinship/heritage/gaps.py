"""Squared distances of every pair of many models, tensor by tensor, in one streaming pass.

Each pair's difference is taken and squared on its own. The Gram matrix of differences from one reference costs half the
arithmetic, but leaves few digits where two models are nearer to each other than to it, as in large families most are:
those would have to be read again, pair by pair.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from kinship.checkpoint import Checkpoint
from kinship.chunks import map_chunks, non_finite
from kinship.gram import Float64
from kinship.lanes import dot, fill, four_gaps, gap

# Elements of each model that are compared at a time, so that those of all stay in cache.
TILE = 512


def pairwise_gaps(
    models: Sequence[Checkpoint], names: Sequence[str], progress: Callable[[int], None] | None = None
) -> tuple[Float64, Float64]:
    """Squared norms (T, n) of tensors ``names`` of ``models``, and squared distances (T, n, n), zero where equal.

    Every byte is read once; results do not depend on the number of threads. ``progress`` is told bytes. Cost: n^2
    elements subtracted and squared; memory: the result, and 64 KB a model and thread. Raises `NonFiniteWeights`.
    """
    count = len(models)
    squares, gaps = np.zeros((len(names), count)), np.zeros((len(names), count, count))
    for index, (square, apart) in map_chunks(models, names, _Gaps, progress):
        squares[index] += square
        gaps[index] += apart
    for index, name in enumerate(names):
        if not (np.isfinite(squares[index]).all() and np.isfinite(gaps[index]).all()):
            raise non_finite(name, models)
        gaps[index] += gaps[index].T
    return squares, gaps


class _Gaps:
    """Reduces chunks to squared norms and the lower triangle of squared distances; one object belongs to one thread."""

    def __init__(self, elements: int) -> None:
        self.buffer = np.empty(elements, dtype=np.float32)

    def __call__(self, rows: NDArray[Any]) -> tuple[Float64, Float64]:
        count = len(rows)
        tile = np.empty((count, TILE), dtype=np.float32)
        squares, gaps = np.zeros(count), np.zeros((count, count))
        _fold(rows, tile, squares, gaps)
        return squares, gaps


@numba.njit(nogil=True, cache=True)
def _fold(rows, tile, squares, gaps):  # type: ignore[no-untyped-def]
    count = rows.shape[0]
    for start in range(0, rows.shape[1], tile.shape[1]):
        stop, width = min(start + tile.shape[1], rows.shape[1]), 0
        for i in range(count):
            width = fill(rows[i, start:stop], tile[i])
            squares[i] += dot(tile[i, :width], tile[i, :width])
        for i in range(0, count - 1, 2):
            one, two = tile[i, :width], tile[i + 1, :width]
            for j in range(0, i, 2):
                four = four_gaps(one, two, tile[j, :width], tile[j + 1, :width])
                gaps[i, j] += four[0]
                gaps[i, j + 1] += four[1]
                gaps[i + 1, j] += four[2]
                gaps[i + 1, j + 1] += four[3]
            gaps[i + 1, i] += gap(two, one)
        if count % 2:
            for j in range(count - 1):
                gaps[count - 1, j] += gap(tile[count - 1, :width], tile[j, :width])
