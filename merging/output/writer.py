"""safetensors files written as their tensors come: shapes and dtypes are known before the first byte is."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from kinship.checkpoints.dtypes import DTYPES
from kinship.checkpoints.opening import INDEX_NAME
from kinship.errors import InvalidConfig, OutputNotWritable
from merging.planning.graph import Spec

SHARD_BYTES = 5_000_000_000

_CODES = {dtype: code for code, dtype in DTYPES.items()}


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def bytes_of(size: str) -> int:
    """A number of bytes as people write it; raises `InvalidConfig`.

    >>> bytes_of("5GB"), bytes_of("1.5 MiB")
    (5000000000, 1572864)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", size.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    found = int(float(match[1]) * unit) if match and unit else 0
    if not 0 < found < 1 << 60:
        raise InvalidConfig(
            f"{size[:100]!r} is no size of a file.", hint="Write it as 5GB, 500MB or a number of bytes."
        )
    return found


def shards_of(specs: Iterable[Spec], shard_bytes: int = SHARD_BYTES) -> list[list[Spec]]:
    """Consecutive ``specs`` of at most ``shard_bytes`` together; a larger tensor has a shard to itself."""
    shards: list[list[Spec]] = [[]]
    size = 0
    for spec in specs:
        if shards[-1] and size + spec.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(spec)
        size += spec.nbytes
    return shards


def header_of(shard: Sequence[Spec]) -> tuple[bytes, dict[str, int]]:
    """The first bytes of a safetensors file, and where in the file each tensor begins.

    Tensors of wider dtypes come first, so that each lies at a multiple of its element's size, as readers want it.
    """
    content: dict[str, object] = {"__metadata__": {"format": "pt"}}  # transformers refuses files without this
    offsets, position = {}, 0
    for spec in sorted(shard, key=lambda spec: -spec.dtype.itemsize):
        offsets[spec.name] = position
        place = [position, position + spec.nbytes]
        content[spec.name] = {"dtype": _CODES[spec.dtype], "shape": list(spec.shape), "data_offsets": place}
        position += spec.nbytes
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {name: start + offset for name, offset in offsets.items()}


def file_bytes(specs: Iterable[Spec], shard_bytes: int = SHARD_BYTES) -> int:
    """What the files of weights will take on disk, headers and index included."""
    shards = shards_of(specs, shard_bytes)
    files = sum(len(header_of(shard)[0]) + sum(spec.nbytes for spec in shard) for shard in shards)
    return files + (len(_index_of(shards)) if len(shards) > 1 else 0)


class ShardWriter:
    """Writes tensors with the given ``specs`` into ``folder``, in pieces as they come; a context manager.

    One file, or numbered shards with an index, which is written last. Nothing is held in memory. ``sums`` has the
    sha256 of every file once the block has ended: taken on the way as long as pieces come in the order of the file.
    """

    def __init__(self, folder: Path, specs: Sequence[Spec], shard_bytes: int = SHARD_BYTES) -> None:
        shards = shards_of(specs, shard_bytes)
        self.folder = folder
        self._shards = shards
        self.sums: dict[str, str] = {}
        self._files = [
            SafetensorsFile(folder / _file_name(index, len(shards)), shard) for index, shard in enumerate(shards)
        ]
        self._file_of = {spec.name: file for file, shard in zip(self._files, shards, strict=True) for spec in shard}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        for file in self._files:
            file.close()

    def write(self, name: str, start: int, data: NDArray[np.uint8]) -> None:
        """Bytes of the tensor ``name`` from byte ``start`` of it on."""
        self._file_of[name].write(name, start, data)

    def finish(self) -> None:
        """Complete every file; raises `ValueError` where bytes are missing, which is a bug."""
        for file in self._files:
            self.sums[file.path.name] = file.finish()
        if len(self._shards) > 1:
            (self.folder / INDEX_NAME).write_bytes(_index_of(self._shards))


class SafetensorsFile:
    """One safetensors file in the making: opened by the first write, closed by the last byte, and ``hashed``."""

    def __init__(self, path: Path, shard: Sequence[Spec], *, hashed: bool = True) -> None:
        self.path = path
        self._wanted = hashed
        self._header, self._offsets = header_of(shard)
        self._missing = sum(spec.nbytes for spec in shard)
        self._descriptor: int | None = None
        self._sha, self._hashed = hashlib.sha256(), 0
        self._sum, self._finished = "", False

    def write(self, name: str, start: int, data: NDArray[np.uint8]) -> None:
        """Bytes of the tensor ``name`` from byte ``start`` of it on."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            self._put(self._descriptor, 0, memoryview(self._header))
        self._put(self._descriptor, self._offsets[name] + start, data.data)
        self._missing -= data.nbytes
        if not self._missing:
            self.finish()

    def finish(self) -> str:
        """Complete the file and return its sha256, if that is wanted; raises `ValueError` where bytes are missing."""
        if not self._finished:
            if self._missing:
                raise ValueError(f"{self._missing} bytes of {self.path} were never written")
            if self._descriptor is None:  # of tensors without elements alone
                self.path.write_bytes(self._header)
            self.close()
            self._finished = True
            if self._wanted:
                self._sum = self._sha.hexdigest() if self._hashed == self.path.stat().st_size else sha256(self.path)
        return self._sum

    def close(self) -> None:
        """Close the file, complete or not."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _put(self, descriptor: int, position: int, data: memoryview) -> None:
        if self._wanted and position == self._hashed:  # else the file is hashed when it is complete
            self._sha.update(data)
            self._hashed += data.nbytes
        while data:
            written = os.pwrite(descriptor, data, position)
            data, position = data[written:], position + written


def sha256(file: Path) -> str:
    """Hexadecimal sha256 of the bytes of ``file``."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _index_of(shards: Sequence[Sequence[Spec]]) -> bytes:
    names = {spec.name: _file_name(index, len(shards)) for index, shard in enumerate(shards) for spec in shard}
    total = sum(spec.nbytes for shard in shards for spec in shard)
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))}
    return (json.dumps(content, indent=2) + "\n").encode()


def _file_name(index: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{index + 1:05d}-of-{count:05d}.safetensors"


def require_free(output: Path, needed: int) -> None:
    """Raise `OutputNotWritable` where the disk of ``output`` has fewer than ``needed`` bytes free."""
    free = free_space(output)
    if needed > free:
        raise OutputNotWritable(
            f"{output} needs {needed} bytes; the disk has {free} bytes free.", hint="Choose a folder on another disk."
        )


def free_space(output: Path) -> int:
    """Bytes free where ``output`` will be."""
    place = output.absolute().parent
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
