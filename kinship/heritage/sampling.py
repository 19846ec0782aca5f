"""The same few thousand weights of every matrix of several models: what cheap questions are answered from."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinship.checkpoint import Checkpoint
from kinship.chunks import damaged
from kinship.safetensors_header import TensorEntry
from kinship.threads import worker_count

# Of a tensor, at most so many rows, and of each so many leading columns; of a model, at most so many matrices.
ROWS, COLUMNS, MATRICES = 64, 256, 48
# Vectors shorter than this (norms, biases) are no matrices: nearly constant, they correlate whatever their descent.
MATRIX = 512

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """Weights of tensor ``name`` at the same places in several models: ``values`` (models, rows, columns) fp32.

    ``owners``: (models,) places of the models among those given. ``whole``: the sample is the whole tensor.
    """

    name: str
    owners: tuple[int, ...]
    values: Float32
    whole: bool


def sample(models: Sequence[Checkpoint], progress: Callable[[int], None] | None = None) -> list[Sample]:
    """Samples of up to `MATRICES` matrices, spread over the names; models whose rows differ in number share the first.

    A tensor is told by name and width, so that flattened ones find their matrix. Integers are no weights. Reads at most
    ``MATRICES * ROWS * COLUMNS`` elements a model, by rows. ``progress`` is told bytes. Raises `NonFiniteWeights`.
    """
    groups = _groups(models)
    by_owner: dict[int, list[tuple[str, int]]] = {}
    for key, owners in groups.items():
        for owner in owners:
            by_owner.setdefault(owner, []).append(key)
    wanted = {key for keys in by_owner.values() for key in _spread(sorted(keys))}

    def read(key: tuple[str, int]) -> Sample:
        name, width = key
        owners = groups[key]
        height = min(models[owner].tensors[name].count // width for owner in owners)
        rows, columns = min(height, ROWS), min(width, COLUMNS)
        places = np.linspace(0, height - 1, rows).round().astype(int)
        values = np.empty((len(owners), rows, columns), dtype=np.float32)
        for index, owner in enumerate(owners):
            for row, place in enumerate(places):
                values[index, row] = models[owner].floats(name, int(place) * width, columns)
            if not np.isfinite(values[index]).all():
                raise damaged(name, models[owner])
            if progress is not None:
                progress(values[index].size * models[owner].tensors[name].dtype.itemsize)
        return Sample(name, tuple(owners), values, rows == height and columns == width)

    with ThreadPoolExecutor(worker_count()) as pool:
        return list(pool.map(read, sorted(wanted)))


def width_of(shape: Sequence[int], count: int) -> int:
    """Columns of a tensor seen as a matrix; one stored flat is cut as near to a square as its count allows.

    >>> width_of((8, 3, 5, 5), 600), width_of((600,), 600)
    (75, 24)
    """
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


def _spread(keys: list[tuple[str, int]]) -> list[tuple[str, int]]:
    if len(keys) <= MATRICES:
        return keys
    return [keys[int(place)] for place in np.linspace(0, len(keys) - 1, MATRICES).round()]
