"""A model on disk, opened lazily: tensors are found from headers and read block by block."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from kinship.cache import fingerprint, recall, remember
from kinship.checkpoints.dtypes import widen
from kinship.checkpoints.header import TensorEntry
from kinship.checkpoints.open_files import FILES
from kinship.errors import InputsChanged, KinshipError, MalformedCheckpoint
from kinship.file_state import FileState, require_unchanged

if TYPE_CHECKING:
    import torch
import hashlib
import json

from kinship.checkpoints.dtypes import DType

Named = tuple[str, DType, tuple[int, ...]]


class ContentDigest:
    """sha256 over names, dtypes, shapes and bytes of ``tensors`` (name, dtype, shape), in order of names.

    Independent of sharding, file names and metadata.
    """

    def __init__(self, tensors: Iterable[Named]) -> None:
        self._sha = hashlib.sha256()
        self._coming = iter(sorted(tensors, key=lambda tensor: tensor[0]))
        self._name: str | None = None

    def update(self, name: str, data: memoryview) -> None:
        """Further bytes of tensor ``name``; raises `ValueError` where they come out of order, which is a bug."""
        while name != self._name:
            if not self._begin():
                raise ValueError(f"tensor {name!r} comes out of order")
        self._sha.update(data)

    def hexdigest(self) -> str:
        """The digest, once all bytes were given."""
        while self._begin():
            pass
        return self._sha.hexdigest()

    def _begin(self) -> bool:
        """Go on to the next tensor, if there is one."""
        tensor = next(self._coming, None)
        if tensor is None:
            return False
        self._name, dtype, shape = tensor
        self._sha.update(json.dumps([self._name, str(dtype), shape]).encode())
        return True


@contextmanager
def unchanged(models: Iterable["Checkpoint"]) -> Iterator[None]:
    """Raise `InputsChanged` where a file of ``models`` is not as it was opened when the block ends, however it ends."""

    def check() -> None:
        for model in models:
            model.require_unchanged()

    try:
        yield
    except (KinshipError, OSError):
        check()
        raise
    check()


BLOCK_ELEMENTS = 1 << 20
HASHED_AT_ONCE = 1 << 23


class Checkpoint:
    """Read access to the weights of one model.

    `tensors` maps names to `TensorEntry` (headers only); `read` fetches a range of elements with one `pread`
    per call, so peak memory is what the caller asks for. Use as a context manager, or call `close`.
    Several threads may read at once. ``beside``: the states of the small files that it was made of, from before they
    were read.
    """

    def __init__(
        self,
        id: str,
        path: Path,
        tensors: Mapping[str, TensorEntry],
        config: dict[str, Any],
        beside: Mapping[Path, FileState] | None = None,
    ) -> None:
        self.id = id
        self.path = path
        self.tensors = dict(sorted(tensors.items()))
        self.config = config
        self.beside = dict(beside or {})
        self._reader = object()  # whose open files are whose; unlike this checkpoint's id(), it is not used again

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Checkpoint({self.id!r}, {len(self.tensors)} tensors)"

    def close(self) -> None:
        """Close the files; reading opens them again."""
        FILES.close(self._reader)

    def stored(self, name: str, start: int = 0, count: int | None = None) -> NDArray[np.uint8]:
        """The bytes of elements ``start .. start + count`` of tensor ``name``."""
        entry = self.tensors[name]
        count = entry.count - start if count is None else count
        buffer = np.empty(count * entry.dtype.itemsize, dtype=np.uint8)
        if count:
            self.read_into(name, start, buffer.data)
        return buffer

    def floats(self, name: str, start: int = 0, count: int | None = None) -> NDArray[np.float32]:
        """Elements ``start .. start + count`` of tensor ``name``, flat, widened to fp32."""
        return widen(self.stored(name, start, count), self.tensors[name].dtype)

    def read(self, name: str, start: int = 0, count: int | None = None) -> "torch.Tensor":
        """Elements ``start .. start + count`` of tensor ``name``, flat, in the stored dtype, on the CPU."""
        import torch

        stored, dtype = self.stored(name, start, count), self.tensors[name].dtype.torch
        return torch.frombuffer(stored.data, dtype=dtype) if stored.size else torch.empty(0, dtype=dtype)

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """Fill ``view`` (bytes) with the elements of tensor ``name`` from ``start`` on, as stored."""
        entry = self.tensors[name]
        position = entry.offset + start * entry.dtype.itemsize
        with FILES.use(self._reader, entry.file) as descriptor:
            while view:
                got = os.preadv(descriptor, [view], position)
                if got == 0:
                    raise MalformedCheckpoint(
                        f"{entry.file} ended while tensor {name!r} was being read.",
                        hint="The file was changed or cut short; save it again.",
                    )
                view, position = view[got:], position + got

    def tensor(self, name: str) -> "torch.Tensor":
        """The whole tensor ``name`` in its shape and stored dtype."""
        return self.read(name).reshape(self.tensors[name].shape)

    def blocks(self, name: str, size: int = BLOCK_ELEMENTS) -> Iterator[tuple[int, int]]:
        """(start, count) of consecutive blocks of at most ``size`` elements that cover tensor ``name``."""
        total = self.tensors[name].count
        for start in range(0, total, size):
            yield start, min(size, total - start)

    @cached_property
    def fingerprint(self) -> str | None:
        """Cheap identity of the weights, from the state of their files: see `kinship.cache.fingerprint`."""
        return self._fingerprint()

    @property
    def states(self) -> dict[Path, FileState]:
        """Every file that it is made of, in its state when it was opened."""
        return self._weight_states | self.beside

    def require_unchanged(self) -> None:
        """Raise `InputsChanged` naming a file that is no longer as it was when it was opened."""
        require_unchanged(self.states)

    def changed(self) -> bool:
        """Whether any of the files is no longer as it was when it was opened."""
        try:
            self.require_unchanged()
        except InputsChanged:
            return True
        return False

    @cached_property
    def signature(self) -> str:
        """Whether files elsewhere are likely the same: names, sizes and contents as far as `FileState` has them."""
        facts = sorted((file.name, state.size, state.content) for file, state in self.states.items())
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @cached_property
    def _weight_states(self) -> dict[Path, FileState]:
        return {entry.file: entry.state for entry in self.tensors.values() if entry.state is not None}

    def _fingerprint(self) -> str | None:
        return fingerprint(self._weight_states) if self._weight_states else None

    @cached_property
    def digest(self) -> str:
        """Identity of the weights: see `ContentDigest`.

        Costs one read of all bytes, and is remembered for as long as the files stay as they are. Raises
        `InputsChanged`.
        """
        before = self.fingerprint
        known = recall("digest", before) if before is not None else None
        if known is not None:
            return known[1].decode()
        found = ContentDigest((name, entry.dtype, entry.shape) for name, entry in self.tensors.items())
        buffer = memoryview(bytearray(HASHED_AT_ONCE))
        for name, entry in self.tensors.items():
            size = entry.dtype.itemsize
            for start, count in self.blocks(name, len(buffer) // size):
                part = buffer[: count * size]
                self.read_into(name, start, part)
                found.update(name, part)
        digest = found.hexdigest()
        self.require_unchanged()
        if before is not None:
            remember("digest", before, digest.encode())
        return digest
