"""A model on disk, opened lazily: tensors are found from headers and read block by block."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

import torch

from kinship.errors import MalformedCheckpoint, ReferenceNotFound, UnsupportedCheckpoint
from kinship.safetensors_header import TensorEntry, read_header

INDEX_NAME = "model.safetensors.index.json"
BLOCK_ELEMENTS = 1 << 20


class Checkpoint:
    """Read access to the weights of one model.

    `tensors` maps names to `TensorEntry` (headers only); `read` fetches a range of elements with one `pread`
    per call, so peak memory is what the caller asks for. Use as a context manager, or call `close`.
    Several threads may read at once.
    """

    def __init__(self, id: str, path: Path, tensors: Mapping[str, TensorEntry], config: dict[str, Any]) -> None:
        self.id = id
        self.path = path
        self.tensors = dict(sorted(tensors.items()))
        self.config = config
        self._descriptors: dict[Path, int] = {}
        self._opening = Lock()

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
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def read(self, name: str, start: int = 0, count: int | None = None) -> torch.Tensor:
        """Elements ``start .. start + count`` of tensor ``name``, flat, in the stored dtype, on the CPU."""
        entry = self.tensors[name]
        count = entry.count - start if count is None else count
        if count == 0:
            return torch.empty(0, dtype=entry.dtype)
        buffer = bytearray(count * entry.dtype.itemsize)
        self.read_into(name, start, memoryview(buffer))
        return torch.frombuffer(buffer, dtype=entry.dtype)

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """Fill ``view`` (bytes) with the elements of tensor ``name`` from ``start`` on, as stored."""
        entry = self.tensors[name]
        descriptor, position = self._open(entry.file), entry.offset + start * entry.dtype.itemsize
        while view:
            got = os.preadv(descriptor, [view], position)
            if got == 0:
                raise MalformedCheckpoint(
                    f"{entry.file} ended while tensor {name!r} was being read.",
                    hint="The file was changed or cut short; save it again.",
                )
            view, position = view[got:], position + got

    def _open(self, file: Path) -> int:
        with self._opening:
            if file not in self._descriptors:
                self._descriptors[file] = os.open(file, os.O_RDONLY)
            return self._descriptors[file]

    def tensor(self, name: str) -> torch.Tensor:
        """The whole tensor ``name`` in its shape and stored dtype."""
        return self.read(name).reshape(self.tensors[name].shape)

    def blocks(self, name: str, size: int = BLOCK_ELEMENTS) -> Iterator[tuple[int, int]]:
        """(start, count) of consecutive blocks of at most ``size`` elements that cover tensor ``name``."""
        total = self.tensors[name].count
        for start in range(0, total, size):
            yield start, min(size, total - start)

    @cached_property
    def digest(self) -> str:
        """Identity of the weights: sha256 over names, dtypes, shapes and bytes in order of names.

        Independent of sharding, file names and metadata. Costs one read of all bytes, once per object.
        """
        sha = hashlib.sha256()
        for name, entry in self.tensors.items():
            sha.update(json.dumps([name, str(entry.dtype), entry.shape]).encode())
            for start, count in self.blocks(name):
                sha.update(self.read(name, start, count).view(torch.uint8).numpy().data)
        return sha.hexdigest()


def open_checkpoint(reference: str | Path, *, id: str | None = None, root: Path | None = None) -> Checkpoint:
    """Open a local folder or a single ``.safetensors`` file; relative paths count from ``root`` (or the cwd).

    ``id`` is the name that results carry; by default the reference as given. Reads ``config.json`` (where there
    is one) and the headers only. Raises `ReferenceNotFound`, `MalformedCheckpoint` or `UnsupportedCheckpoint`.
    """
    path = (root or Path()) / os.path.expanduser(reference)
    if os.path.isfile(path):
        return Checkpoint(id or str(reference), path, read_header(path), {})
    if not os.path.isdir(path):  # unlike Path.is_dir, false (no OSError) for a name that is too long
        raise ReferenceNotFound(
            f"There is no model at {str(reference)!r}: {path.absolute()} does not exist.",
            hint="Give a folder that holds config.json and *.safetensors, or one .safetensors file.",
        )
    config = _read_json(path / "config.json") if (path / "config.json").exists() else {}
    if "quantization_config" in config:
        raise UnsupportedCheckpoint(
            f"{reference} is quantised; its integers are codes, not weights.",
            hint="Use the original checkpoint, or dequantise it first.",
        )
    tensors: dict[str, TensorEntry] = {}
    for file in _weight_files(path):
        for name, entry in read_header(file).items():
            if name in tensors:
                raise MalformedCheckpoint(f"{path}: tensor {name!r} is stored in two files.", hint="Save it again.")
            tensors[name] = entry
    return Checkpoint(id or str(reference), path, tensors, config)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX_NAME).exists():
        weight_map = _read_json(folder / INDEX_NAME).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise MalformedCheckpoint(f"{folder / INDEX_NAME} has no weight_map of tensor names to file names.")
        names = sorted(set(weight_map.values()))
        for name in names:
            if Path(name).name != name or not os.path.isfile(folder / name):
                raise MalformedCheckpoint(
                    f"{folder / INDEX_NAME} names the shard {name!r}, which is not a file in that folder.",
                    hint="Download the missing shards.",
                )
        return [folder / name for name in names]
    files = [folder / "model.safetensors"]
    if not files[0].is_file():
        files = sorted(file for file in folder.glob("*.safetensors") if file.is_file())
    if not files:
        pickled = sorted(file.name for file in folder.glob("*.bin"))
        found = f"only {', '.join(pickled)}" if pickled else "no weights"
        raise UnsupportedCheckpoint(
            f"{folder} holds {found}; safetensors files were expected.",
            hint="Save the model with save_pretrained(..., safe_serialization=True).",
        )
    return files


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise MalformedCheckpoint(f"{path} is not valid JSON: {error}.", hint="Save the file again.") from None
    if not isinstance(content, dict):
        raise MalformedCheckpoint(f"{path} holds no JSON object.", hint="Save the file again.")
    return content
