"""The same few thousand weights of every matrix of several models: what cheap questions are answered from."""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float32
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.header import TensorEntry
from kinship.heritage.stages import Stages
from kinship.measures.passes import damaged
from kinship.threads import worker_count

# Of a tensor, at most so many rows, and of each so many leading columns; of a model, at most so many matrices.
ROWS, COLUMNS, MATRICES = 64, 256, 48
# Vectors shorter than this (norms, biases) are no matrices: nearly constant, they correlate whatever their descent.
MATRIX = 512
# Bytes that samples may take together, unless that leaves fewer matrices than this of each model.
MEMORY, FEWEST = 1 << 30, 16
SMALL = 1 << 18


@dataclass(frozen=True)
class Sample:
    """Weights of tensor ``name`` at the same places in several models: ``values`` (models, rows, columns) fp32.

    ``owners``: (models,) places of the models among those given.
    """

    name: str
    owners: tuple[int, ...]
    values: Float32

    def of(self, model: int) -> Float32:
        """The weights (rows, columns) of the model at that place."""
        found: Float32 = self.values[self.owners.index(model)]
        return found


def matrices_of(samples: Sequence[Sample], models: Iterable[int]) -> list[Sample]:
    """Those of ``samples`` that all of ``models`` have, and that are no vectors."""
    wanted = set(models)
    return [one for one in samples if min(one.values.shape[1:]) > 1 and wanted <= set(one.owners)]


def sample(models: Sequence[Checkpoint], stages: Stages | None = None) -> list[Sample]:
    """All of `samples`, in memory: at most `MEMORY`, or `FEWEST` matrices a model where that is more."""
    return list(samples(models, stages))


def samples(models: Sequence[Checkpoint], stages: Stages | None = None) -> Iterator[Sample]:
    """Samples of matrices spread over the names, one by one; models whose rows differ in number share the first.

    A tensor is told by name and width, so that flattened ones find their matrix. Integers are no weights. Of up to
    `MATRICES` matrices a model, fewer of hundreds of models, ``ROWS * COLUMNS`` elements at most. Raises
    `NonFiniteWeights`.
    """
    groups = _groups(models)
    by_owner: dict[int, list[tuple[str, int]]] = {}
    for key, owners in groups.items():
        for owner in owners:
            by_owner.setdefault(owner, []).append(key)
    most = min(MATRICES, max(FEWEST, MEMORY // (4 * ROWS * COLUMNS * max(len(models), 1))))
    wanted = sorted({key for keys in by_owner.values() for key in _spread(sorted(keys), most)})

    def read(key: tuple[str, int]) -> Sample:
        name, width = key
        owners = groups[key]
        height = min(models[owner].tensors[name].count // width for owner in owners)
        rows, columns = min(height, ROWS), min(width, COLUMNS)
        places = np.linspace(0, height - 1, rows).round().astype(int)
        values = np.empty((len(owners), rows, columns), dtype=np.float32)
        for index, owner in enumerate(owners):
            values[index] = _excerpt(models[owner], name, width, places, columns)
            if not np.isfinite(values[index]).all():
                raise damaged(name, models[owner])
        return Sample(name, tuple(owners), values)

    advance = (stages or Stages()).bytes(
        "Sampling weights", 4 * ROWS * COLUMNS * sum(len(groups[key]) for key in wanted)
    )
    workers = worker_count()
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(wanted), workers):  # no further ahead of whoever takes them than that
            for one in pool.map(read, wanted[first : first + workers]):
                advance(4 * ROWS * COLUMNS * len(one.owners))
                yield one


def _excerpt(model: Checkpoint, name: str, width: int, places: NDArray[np.int_], columns: int) -> Float32:
    """Rows ``places`` of a matrix of ``width`` columns, the first ``columns`` of each."""
    height = int(places[-1]) + 1
    if height * width <= SMALL:  # one read costs less than many
        return model.floats(name, 0, height * width).reshape(height, width)[places, :columns]
    return np.stack([model.floats(name, place * width, columns) for place in places.tolist()])


def width_of(shape: Sequence[int], count: int) -> int:
    """Columns of a tensor seen as a matrix; one stored flat is cut as near to a square as its count allows.

    Experts that are stacked lie below each other where that is nearer to one than each in a row.

    >>> width_of((8, 3, 5, 5), 600), width_of((600,), 600), width_of((4, 48, 16), 3072)
    (75, 24, 16)
    """
    if len(shape) == 3 and min(shape[0] * shape[1], shape[2]) > min(shape[0], shape[1] * shape[2]):
        return shape[2]
    if len(shape) > 1 and shape[0] > 0:
        return count // shape[0]
    return next((width for width in range(math.isqrt(count), 0, -1) if count % width == 0), 1) if count else 1


def _groups(models: Sequence[Checkpoint]) -> dict[tuple[str, int], list[int]]:
    """Models by (name, width) of their matrices."""
    entries: dict[str, list[tuple[int, TensorEntry]]] = {}
    for index, model in enumerate(models):
        for name, entry in model.tensors.items():
            if entry.dtype.is_floating_point and entry.count >= MATRIX:
                entries.setdefault(name, []).append((index, entry))
    found: dict[tuple[str, int], list[int]] = {}
    for name, owned in entries.items():
        # A tensor stored flat has the width of one of the same size that is not.
        shaped = {entry.count: width_of(entry.shape, entry.count) for _, entry in owned if len(entry.shape) > 1}
        for index, entry in owned:
            width = shaped.get(entry.count) if len(entry.shape) < 2 else None
            found.setdefault((name, width or width_of(entry.shape, entry.count)), []).append(index)
    return found


def _spread(keys: list[tuple[str, int]], most: int) -> list[tuple[str, int]]:
    if len(keys) <= most:
        return keys
    return [keys[int(place)] for place in np.linspace(0, len(keys) - 1, most).round()]
