"""One more row of a Gram table, gathered while the new model is written."""

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float64
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import BFLOAT16, DType, widen
from kinship.measures.close_pairs import are_close, implied_product
from kinship.measures.gram import GramTable
from kinship.measures.moments import task_vector_row
from kinship.measures.passes import chunk_elements, non_finite, read_rows


class GramRow:
    """The row by which a new model extends ``table``, whose ``models`` are open (the first is the base).

    `add` it the new model's bytes, piece by piece, from any thread and in any order: where pieces begin and end decides
    the last bits of the result, and nothing else does. Distances from close models are measured from the differences
    (as by `compare` with the metric ``euclidean``, but tensor by tensor). Reads the bytes of all ``models`` once.
    Where a model is None, its weights are gone: products with it are not known, NaN. Memory: a few MB a thread.
    """

    def __init__(self, table: GramTable, models: Sequence[Checkpoint | None]) -> None:
        self._table = table
        self._models = [model for model in models if model is not None]
        self._columns = [index for index, model in enumerate(models) if model is not None]
        self._places = {name: index for index, name in enumerate(table.names)}
        self._parts: dict[tuple[int, int], tuple[float, Float64, Float64]] = {}
        self._own = threading.local()

    def add(self, name: str, start: int, stored: NDArray[np.uint8], dtype: DType) -> None:
        """Bytes of tensor ``name`` from byte ``start`` of it on; integers have no part in it."""
        if not dtype.is_floating_point:
            return
        sources, size = [(model, name) for model in self._models], dtype.itemsize
        first, step = start // size, chunk_elements(len(sources))
        if not hasattr(self._own, "buffer"):
            self._own.buffer = np.empty(len(sources) * step, dtype=np.float32)
        total, products, gaps = 0.0, np.zeros(len(sources) + 1), np.zeros(len(sources))
        for begin in range(0, len(stored) // size, step):
            part = stored[begin * size : (begin + step) * size]
            # All as stored or none: each mixture would be a kernel of its own to compile.
            rows = read_rows(sources, first + begin, len(part) // size, self._own.buffer, as_stored=dtype == BFLOAT16)
            numbers = part.view(np.uint16) if rows.dtype == np.uint16 else widen(part, dtype)
            total += task_vector_row(rows, numbers, products, gaps)
        self._parts[self._places[name], start] = total, products, gaps

    def table(self, id: str) -> GramTable:
        """The table with the new model, once all its bytes were given, as ``id``.

        Raises `NonFiniteWeights` naming a tensor whose squared norm overflows.
        """
        size = len(self._models)
        sums = np.zeros(len(self._places))
        products, gaps = np.zeros((len(sums), size + 1)), np.zeros((len(sums), size))
        for (index, _), (total, part, apart) in sorted(self._parts.items(), key=lambda item: item[0]):
            sums[index] += total
            products[index] += part
            gaps[index] += apart
        for index in np.flatnonzero(~np.isfinite(products).all(axis=1)).tolist():
            raise non_finite(self._table.names[index], self._models)
        squares = np.diagonal(self._table.grams, axis1=1, axis2=2)[:, self._columns] + products[:, -1:]
        close = are_close(products[:, :-1], squares)
        close[:, 0] = False  # the base is no task vector
        products[:, :-1][close] = implied_product(squares, gaps)[close]
        row = np.full((len(sums), len(self._table.rows) + 1), np.nan)
        row[:, [*self._columns, -1]] = products
        return self._table.extended(id, sums, row)
