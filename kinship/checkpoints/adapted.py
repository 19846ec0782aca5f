"""A base model with an adapter on top, as a checkpoint."""

import hashlib
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinship.checkpoints.changes import Adapter, Change, Magnitudes, Rows, Stack
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import FLOAT32
from kinship.checkpoints.header import TensorEntry
from kinship.checkpoints.low_rank import LowRank, since_start
from kinship.checkpoints.tied import Untied
from kinship.file_state import FileState

# Changes are multiplied out in tiles of whole rows that do not depend on the range asked for, so that an element's last
# bits do not either: digests, Gram tables and merges read in blocks of different sizes.
TILE_ELEMENTS = 1 << 16

Float32s = NDArray[np.float32]


class AdaptedCheckpoint(Checkpoint):
    """``base`` with ``adapter`` applied: changed tensors are computed block by block as they are read, in fp32.

    What needs a whole matrix (the factors that an initialisation took out of it, the lengths of DoRA's rows) is found
    when it is first asked for, one matrix at a time, and kept: factors and lengths, not the matrix. ``beside``: the
    states of the adapter's files. ``made_for``: the base that the adapter names.
    """

    def __init__(
        self,
        id: str,
        base: Checkpoint,
        adapter: Adapter,
        beside: Mapping[Path, FileState] | None = None,
        made_for: str | None = None,
    ) -> None:
        self._tied = base
        base = base if adapter.own_head is None else Untied(base, *adapter.own_head)
        tensors = {name: _changed(entry) if name in adapter.changes else entry for name, entry in base.tensors.items()}
        super().__init__(id, base.path, tensors, base.config, {**base.beside, **(beside or {})})
        self.base = base
        self.adapter = adapter
        self.made_for = made_for
        self._trained: dict[str, LowRank] = {}
        self._factors: dict[str, Float32s] = {}
        self._one_matrix = threading.RLock()

    def untied(self, head: str, embedding: str) -> "AdaptedCheckpoint":
        """The same model with its ``head``, which is tied to its ``embedding``, a tensor of its own."""
        return AdaptedCheckpoint(self.id, self._tied, self.adapter.untied(head, embedding), self.beside, self.made_for)

    @property
    def foreign_base(self) -> str | None:
        """The base that the adapter names, where it is on another; told by the last parts of names, as folders move."""
        given = (self._tied.id, str(self._tied.path.resolve()), str(self._tied.config.get("_name_or_path") or ""))
        names = set(map(_last_part, given))
        return self.made_for if self.made_for and _last_part(self.made_for) not in names else None

    def low_rank(self, name: str) -> LowRank | None:
        """The low-rank change of a tensor, less what the base had lost to it before; None where there is none.

        Costs a decomposition of the matrix the first time, where the adapter has a `Start`.
        """
        change = self.adapter.changes.get(name)
        if change is None or change.start is None or change.low_rank is None:
            return None if change is None else change.low_rank
        with self._one_matrix:
            if name not in self._trained:
                weight = self.base.floats(name).reshape(self.tensors[name].shape)
                self._trained[name] = since_start(change.low_rank, change.start, weight)
            return self._trained[name]

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """See `Checkpoint.read_into`."""
        change, size = self.adapter.changes.get(name), self.tensors[name].dtype.itemsize
        if change is None:
            self.base.read_into(name, start, view)
        elif self.tensors[name].dtype.is_floating_point:
            view[:] = self._floats(name, change, start, len(view) // size).data.cast("B")
        else:
            assert change.replaced is not None
            view[:] = change.replaced.data[start * size :][: len(view)]

    def _floats(self, name: str, change: Change, start: int, count: int) -> Float32s:
        """Elements ``start .. start + count`` of a changed tensor, flattened."""
        weights = self._summed(name, change, start, count)
        if change.magnitudes is not None:
            factors, places = self._factors_of(name, change, change.magnitudes), np.arange(start, start + count)
            width = self._width(name)
            weights *= factors[places % width if change.magnitudes.of_columns else places // width]
        if change.added is not None:
            weights += change.added[start:][:count]
        if change.rows is not None:
            _put(weights, change.rows, start)
        return weights

    def _summed(self, name: str, change: Change, start: int, count: int) -> Float32s:
        """What stands in its place with the low-rank change added; memory of the caller's own."""
        if change.replaced is None:
            weights = self.base.floats(name, start, count)
        else:
            weights = change.replaced.reshape(-1)[start:][:count].copy()
        if change.stack is not None:
            weights = weights + _stacked(change.stack, start, count)
        low_rank = self.low_rank(name)
        return weights if low_rank is None else weights + _block(low_rank, start, count)

    def _factors_of(self, name: str, change: Change, magnitudes: Magnitudes) -> Float32s:
        """What each row, or column, is multiplied by to have the length that ``magnitudes`` say."""
        with self._one_matrix:
            if name not in self._factors:
                width, total = self._width(name), self.tensors[name].count
                squares = np.zeros(len(magnitudes.lengths))
                step = max(1, TILE_ELEMENTS // width) * width
                for start in range(0, total, step):
                    tile = self._summed(name, change, start, min(step, total - start)).reshape(-1, width)
                    found = np.square(tile, dtype=np.float64).sum(axis=0 if magnitudes.of_columns else 1)
                    if magnitudes.of_columns:
                        squares += found
                    else:
                        squares[start // width :][: len(found)] = found
                with np.errstate(divide="ignore", invalid="ignore"):  # a row of zeros is reported by who reads it
                    self._factors[name] = (magnitudes.lengths / np.sqrt(squares)).astype(np.float32)
            return self._factors[name]

    def _width(self, name: str) -> int:
        entry = self.tensors[name]
        return entry.count // entry.shape[0]

    def _fingerprint(self) -> str | None:
        base = self.base._fingerprint()
        if base is None:
            return None
        sha = hashlib.sha256(f"{base}+".encode())
        for name, change in sorted(self.adapter.changes.items()):
            for part, value in change.parts():
                is_array = isinstance(value, np.ndarray)
                sha.update(repr((name, part, value.shape if is_array else value)).encode())
                sha.update(value.tobytes() if is_array else b"")
        return sha.hexdigest()

    def close(self) -> None:
        """Close the files of the base too."""
        super().close()
        self.base.close()


def _last_part(reference: str) -> str:
    """Of a path or Hub id, without its revision and suffix.

    >>> _last_part("org/Base-7B@main"), _last_part("models/base-7b.safetensors"), _last_part("./base-7b/")
    ('base-7b', 'base-7b', 'base-7b')
    """
    name = re.split(r"[/\\]", reference.rstrip("/\\"))[-1].partition("@")[0]
    return name.removesuffix(".safetensors").lower()


def _block(change: LowRank, start: int, count: int) -> Float32s:
    """Elements ``start .. start + count`` of the flattened change, fp32, computed from the tiles they lie in."""
    height, width = change.shape
    step = max(1, TILE_ELEMENTS // width)
    first, last = start // width // step * step, min(height, -(-(start + count) // width))
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is reported by who reads it
        tiles = [change.left[row : row + step] @ change.right for row in range(first, last, step)]
    return np.float32(change.scale) * np.concatenate(tiles).reshape(-1)[start - first * width :][:count]


def _stacked(change: Stack, start: int, count: int) -> Float32s:
    """As `_block`, of matrices that follow one another."""
    size = change.left.shape[1] * change.right.shape[2]
    found = []
    for place in range(start // size, -(-(start + count) // size)):
        first, last = max(start, place * size), min(start + count, (place + 1) * size)
        found.append(_block(change[place], first - place * size, last - first))
    return np.concatenate(found)


def _put(weights: Float32s, rows: Rows, start: int) -> None:
    """Put ``rows`` into their place in ``weights``, the elements of a flattened tensor from ``start`` on."""
    width = rows.values.shape[1]
    for row, values in zip(rows.ids.tolist(), rows.values, strict=True):
        place = row * width - start
        first, last = max(0, place), min(len(weights), place + width)
        if first < last:
            weights[first:last] = values[first - place : last - place]


def foreign_adapters(models: Iterable[Checkpoint]) -> list[str]:
    """What to say of adapters among ``models`` that name another base than the one they are on."""
    return [
        f"The adapter of {one.id} was made for {one.foreign_base}, as it says; it is taken on {one.base.id}."
        for one in models
        if isinstance(one, AdaptedCheckpoint) and one.foreign_base
    ]


def _changed(entry: TensorEntry) -> TensorEntry:
    """Floats that an adapter touches are read as fp32; a replaced buffer of integers keeps its dtype."""
    return replace(entry, dtype=FLOAT32, nbytes=4 * entry.count) if entry.dtype.is_floating_point else entry
