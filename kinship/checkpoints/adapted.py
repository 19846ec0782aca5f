"""A base model with a LoRA adapter on top, as a checkpoint; and kinship of adapters from their factors alone."""

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import FLOAT32
from kinship.checkpoints.header import TensorEntry
from kinship.checkpoints.lora import Adapter, LowRank

# Changes are multiplied out in tiles of whole rows that do not depend on the range asked for, so that an element's last
# bits do not either: digests, Gram tables and merges read in blocks of different sizes.
TILE_ELEMENTS = 1 << 16


class AdaptedCheckpoint(Checkpoint):
    """``base`` with ``adapter`` applied: changed tensors are computed block by block as they are read, in fp32."""

    def __init__(self, id: str, base: Checkpoint, adapter: Adapter) -> None:
        changed = adapter.low_rank.keys() | adapter.replaced.keys()
        tensors = {name: _changed(entry) if name in changed else entry for name, entry in base.tensors.items()}
        super().__init__(id, base.path, tensors, base.config)
        self.base = base
        self.adapter = adapter

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """See `Checkpoint.read_into`."""
        replaced, change = self.adapter.replaced.get(name), self.adapter.low_rank.get(name)
        size = self.tensors[name].dtype.itemsize
        count = len(view) // size
        if change is not None:
            weights = self.base.floats(name, start, count) if replaced is None else replaced.reshape(-1)[start:][:count]
            view[:] = (weights + _block(change, start, count)).data.cast("B")
        elif replaced is not None:
            view[:] = replaced.reshape(-1).view(np.uint8).data[start * size :][: len(view)]
        else:
            self.base.read_into(name, start, view)

    def _fingerprint(self) -> str | None:
        base = self.base._fingerprint()
        if base is None:
            return None
        sha = hashlib.sha256(f"{base}+".encode())
        for name, change in sorted(self.adapter.low_rank.items()):
            sha.update(repr((name, change.left.shape, change.right.shape, change.scale)).encode())
            sha.update(change.left.tobytes() + change.right.tobytes())
        for name, whole in sorted(self.adapter.replaced.items()):
            sha.update(repr((name, whole.shape)).encode() + whole.tobytes())
        return sha.hexdigest()

    def close(self) -> None:
        """Close the files of the base too."""
        super().close()
        self.base.close()


def _block(change: LowRank, start: int, count: int) -> NDArray[np.float32]:
    """Elements ``start .. start + count`` of the flattened change, fp32, computed from the tiles they lie in."""
    height, width = change.shape
    step = max(1, TILE_ELEMENTS // width)
    first, last = start // width // step * step, min(height, -(-(start + count) // width))
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is reported by who reads it
        tiles = [change.left[row : row + step] @ change.right for row in range(first, last, step)]
    return np.float32(change.scale) * np.concatenate(tiles).reshape(-1)[start - first * width :][:count]


def _changed(entry: TensorEntry) -> TensorEntry:
    """Floats that an adapter touches are read as fp32; a replaced buffer of integers keeps its dtype."""
    return replace(entry, dtype=FLOAT32, nbytes=4 * entry.count) if entry.dtype.is_floating_point else entry
