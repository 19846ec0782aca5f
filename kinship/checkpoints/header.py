"""The safetensors header, parsed and checked before any of it is believed.

The `safetensors` library does not tell where a tensor's bytes lie, and the Gram pass reads them itself in
blocks; so the header is read here, with the format's own rules enforced (sizes, offsets, no gaps or overlaps).
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from kinship.checkpoints.dtypes import DTYPES, NOT_COMPUTED, DType
from kinship.errors import MalformedCheckpoint, UnsupportedCheckpoint
from kinship.file_state import FileState

MAX_HEADER_BYTES = 100_000_000  # the format's own limit, which would take a GB to hold
# What is read of that: several times what the largest models there are would have in one file.
MOST_HEADER_BYTES, MOST_TENSORS = 32_000_000, 250_000
_FIELDS = ("dtype", "shape", "data_offsets")
MAX_DIMENSIONS = 64  # more than torch can hold


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies: ``offset`` and ``nbytes`` are absolute positions in ``file``, in bytes.

    state: of the file, from before its header was read.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int
    state: FileState | None = field(default=None, compare=False, repr=False)

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Entries of every tensor in the safetensors file ``path``, by name, in file order.

    Reads the header only, in less than 200 MB of memory. Raises `MalformedCheckpoint` where the header breaks the
    format, and `UnsupportedCheckpoint` for a dtype of the format that is not computed with, and for a header of more
    than `MOST_HEADER_BYTES` or `MOST_TENSORS`.
    """
    state = FileState.of(path)
    size = state.size
    with open(path, "rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise _malformed(path, "it is shorter than the 8 bytes of a header length")
        length = int.from_bytes(prefix, "little")
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise _malformed(path, f"its header claims {length} bytes, the file has {size}")
        if length > MOST_HEADER_BYTES:
            raise _too_large(path, f"{length:,} bytes of header", f"{MOST_HEADER_BYTES:,}")
        raw = file.read(length)
    # A tensor's entry has three brackets in some fifty bytes; lists of lists would take thirty times their text.
    if raw.count(b"[") + raw.count(b"{") > length // 8 + 8:
        raise _malformed(path, "its header is not JSON about tensors but mostly brackets")
    if (tensors := raw.count(b'"data_offsets"')) > MOST_TENSORS:
        raise _too_large(path, f"{tensors:,} tensors", f"{MOST_TENSORS:,}")
    try:
        text = raw.decode()
        del raw
        header = json.loads(text, object_pairs_hook=_compact)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, f"its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise _malformed(path, "its header is not a JSON object")
    del text
    header.pop("__metadata__", None)
    start = 8 + length
    entries = [_entry(path, name, header.pop(name), start, state) for name in list(header)]
    _check_contiguous(path, entries, start, size)
    return {entry.name: entry for entry in entries}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict; raises `ValueError` where it says one thing twice."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {brief(key)} appears twice")
        content[key] = value
    return content


def _compact(pairs: list[tuple[str, Any]]) -> dict[str, Any] | tuple[Any, ...]:
    """`_unique`; what a tensor says, as a tuple of `_FIELDS`, which takes half the memory."""
    content = _unique(pairs)
    if content.keys() == set(_FIELDS) and isinstance(content["dtype"], str):
        return tuple(content[key] for key in _FIELDS)
    return content


def _entry(path: Path, name: str, fields: object, start: int, state: FileState) -> TensorEntry:
    if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
        raise _malformed(path, f"the name {brief(name)} is not text")
    try:
        said = fields if isinstance(fields, tuple) else tuple(fields[key] for key in _FIELDS)  # type: ignore[index]
        dtype_name, shape, (begin, end) = said
    except (TypeError, KeyError, ValueError):
        raise _malformed(path, f"tensor {name!r} lacks dtype, shape or data_offsets") from None
    dtype = DTYPES.get(dtype_name) if isinstance(dtype_name, str) else None
    if isinstance(dtype_name, str) and dtype_name in NOT_COMPUTED:
        raise UnsupportedCheckpoint(
            f"{path} holds tensor {name!r} as {dtype_name}, a dtype that is not computed with here.",
            hint="It is quantised, or made for other hardware: use the original checkpoint, or save it as bfloat16.",
        )
    if dtype is None:
        raise _malformed(path, f"tensor {name!r} has the unknown dtype {brief(dtype_name)}")
    sizes = shape if isinstance(shape, list) and len(shape) <= MAX_DIMENSIONS else [None]
    if not (all(_is_size(n) for n in sizes) and _is_size(math.prod(n or 1 for n in sizes))):
        raise _malformed(path, f"tensor {name!r} has the impossible shape {brief(shape)}")
    if not (_is_size(begin) and _is_size(end) and begin <= end and start + end <= state.size):
        raise _malformed(path, f"tensor {name!r} claims bytes {brief(begin)}..{brief(end)}, beyond the file")
    nbytes = math.prod(shape) * dtype.itemsize
    if end - begin != nbytes:
        raise _malformed(path, f"tensor {name!r} of shape {shape} needs {nbytes} bytes, has {end - begin}")
    return TensorEntry(name, dtype, tuple(shape), path, start + begin, nbytes, state)


def _check_contiguous(path: Path, entries: list[TensorEntry], start: int, size: int) -> None:
    position = start
    for entry in sorted(entries, key=lambda entry: (entry.offset, entry.nbytes)):
        if entry.offset != position:
            raise _malformed(path, f"the bytes of tensor {entry.name!r} overlap another's or leave a gap")
        position += entry.nbytes
    if position != size:
        raise _malformed(path, f"its tensors end at byte {position}, the file at {size}")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _too_large(path: Path, found: str, most: str) -> UnsupportedCheckpoint:
    return UnsupportedCheckpoint(
        f"{path} has {found}; up to {most} are read.",
        hint="Is it a model? Save one this large in several shards, as save_pretrained does.",
    )


def _malformed(path: Path, reason: str) -> MalformedCheckpoint:
    partial = "Download or save the file again; a partial download looks like this."
    other = "By its name it is something else: give the model's folder, or its .safetensors file."
    return MalformedCheckpoint(
        f"{path} is not a valid safetensors file: {reason}.",
        hint=partial if path.suffix in {".safetensors", ""} else other,  # the Hub's cache has blobs without a suffix
    )
