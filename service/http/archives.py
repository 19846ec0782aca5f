"""A folder as one file to take away: a tar that is never written, whose every byte is known before it is sent.

So its size is told beforehand, any range of it can be asked for, and no more of it than a part is in memory.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from kinship.errors import InputsChanged
from service.http.artefacts import is_hidden, list_files
from service.jobs.errors import NotFound

CHUNK = 1 << 18  # bytes of a file that are read at once
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)


@dataclass(frozen=True)
class Member:
    """A file as it is when the archive is asked for. header: what stands before it in the tar."""

    file: Path
    size: int
    header: bytes

    @property
    def padding(self) -> int:
        """Bytes after it, to the end of a block."""
        return -self.size % BLOCK


@dataclass(frozen=True)
class Archive:
    """A tar called ``name`` of some files; ``tag`` tells these contents from others."""

    name: str
    members: tuple[Member, ...]
    tag: str

    @cached_property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(len(one.header) + one.size + one.padding for one in self.members) + len(END)

    def parts(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from ``start`` to before ``end``, a part at a time.

        Raises `InputsChanged` where a file became shorter, or another one, meanwhile: what was sent ends there.
        """
        place = 0
        for segment, length in self._segments():
            first, last = max(start - place, 0), min(end - place, length)
            place += length
            if first >= last:
                continue
            if isinstance(segment, bytes):
                yield segment[first:last]
            else:
                yield from _read(segment, first, last)

    def _segments(self) -> Iterator[tuple[bytes | Member, int]]:
        for one in self.members:
            yield one.header, len(one.header)
            yield one, one.size
            yield bytes(one.padding), one.padding
        yield END, len(END)


def archive(folder: Path, path: str, name: str) -> Archive:
    """What lies below ``folder/path``, links and hidden files left out, to be called ``name``.

    Raises `NotFound` for what is no folder there.
    """
    missing = NotFound(f"There is no folder {path[:200]!r} here.", hint="The list of files tells which there are.")
    if is_hidden(path):
        raise missing
    try:
        inside = Path(os.path.realpath(folder / path))
        if not (inside.is_relative_to(os.path.realpath(folder)) and inside.is_dir()):
            raise missing
    except (OSError, ValueError):
        raise missing from None
    members, digest = list[Member](), hashlib.blake2b(digest_size=12)
    for found in list_files(inside).files:
        file = inside / found.path
        try:
            modified = file.stat().st_mtime_ns
        except FileNotFoundError:
            continue  # put elsewhere meanwhile
        info = tarfile.TarInfo(f"{inside.name}/{found.path}")
        info.size, info.mtime = found.bytes, modified // 1_000_000_000
        members.append(Member(file, found.bytes, info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")))
        digest.update(f"{found.path}\0{found.bytes}\0{modified}\0".encode())
    if not members:
        raise missing
    return Archive(name, tuple(members), digest.hexdigest())


def range_of(asked: str, size: int) -> tuple[int, int] | None:
    """The first byte of a Range header and the one after its last; None where all is to be sent, as for several ranges.

    Raises `ValueError` for a range that is not there.

    >>> range_of("bytes=2-5", 10), range_of("bytes=7-", 10), range_of("bytes=-3", 10), range_of("lines=1-2", 10)
    ((2, 6), (7, 10), (7, 10), None)
    """
    found = re.fullmatch(r"bytes=([0-9]{0,20})-([0-9]{0,20})", asked.replace(" ", ""))
    if found is None or found[0] == "bytes=-":
        return None
    if not found[1]:
        start, end = max(0, size - int(found[2])), size
    else:
        start, end = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
    if start >= end:
        raise ValueError(asked)
    return start, end


def _read(member: Member, start: int, end: int) -> Iterator[bytes]:
    try:
        with os.fdopen(os.open(member.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            yield from _chunks(file, start, end)
    except (OSError, EOFError):
        raise InputsChanged(f"{member.file} changed while it was sent.", hint="Ask again.") from None


def _chunks(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    file.seek(start)
    while start < end:
        part = file.read(min(CHUNK, end - start))
        if not part:
            raise EOFError
        start += len(part)
        yield part
