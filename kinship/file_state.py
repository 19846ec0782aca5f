"""What tells a file from any other without reading all of it, and whether it is still as it was.

Sizes and times of change can be kept while bytes are exchanged (``cp -p``, archives with fixed dates), so that a file's
state also has the time of its inode, which no program can set, and a sample of its content. What a sample can miss is
told in docs/reliability.md; where the environment variable KINSHIP_VERIFY_INPUTS is 1, the whole content counts.
"""

import hashlib
import os
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

from kinship.errors import InputsChanged

VERIFY = "KINSHIP_VERIFY_INPUTS"
YOUNG_SECONDS = 1.0
ENDS, BLOCK, BLOCKS = 4096, 512, 16  # bytes of head and tail, bytes of a random block, how many of those


def verifying() -> bool:
    """Whether files are known by all of their content."""
    return os.environ.get(VERIFY, "").lower() not in ("", "0", "no", "off", "false")


@dataclass(frozen=True)
class FileState:
    """A file at one moment: bytes, times in nanoseconds since the epoch (``changed``: of the inode), and its content.

    content: the same for equal bytes wherever they lie: a digest of head, tail and random blocks, or of everything.
    """

    size: int
    modified: int
    changed: int
    inode: int
    device: int
    content: str

    @classmethod
    def of(cls, file: Path) -> Self:
        """The state of ``file``; raises `OSError`. Some 30 microseconds, or reading it whole: see `verifying`."""
        descriptor = os.open(file, os.O_RDONLY)
        try:
            status = os.fstat(descriptor)
            if verifying():
                with os.fdopen(os.dup(descriptor), "rb") as stream:
                    content = "whole:" + hashlib.file_digest(stream, "sha256").hexdigest()
            else:
                content = _sample(descriptor, status.st_size)
        finally:
            os.close(descriptor)
        return cls(
            status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev, content
        )  # fmt: skip

    @property
    def young(self) -> bool:
        """Whether a further change might go unseen: the clocks of file systems are coarse."""
        return time.time() - max(self.modified, self.changed) / 1e9 < YOUNG_SECONDS


def states_of(files: Iterable[Path]) -> dict[Path, FileState]:
    """The states of ``files``; raises `OSError`."""
    return {file: FileState.of(file) for file in files}


def require_unchanged(states: Mapping[Path, FileState]) -> None:
    """Raise `InputsChanged` naming the first file that is not as it was in ``states``."""
    for file, before in states.items():
        try:
            now = FileState.of(file)
        except OSError as error:
            raise _changed(file, f"it cannot be read any more ({error.strerror or error})") from None
        if now != before:
            raise _changed(file, f"it had {before.size} bytes and has {now.size}" if now.size != before.size else
                           "it was replaced" if now.inode != before.inode else "it was written to")  # fmt: skip


def _changed(file: Path, how: str) -> InputsChanged:
    return InputsChanged(
        f"{file} changed while it was in use: {how}. What was computed from it meanwhile is not kept.",
        hint="Put the file back as it was, or use a copy that nothing else writes to; then run the command again "
        "(a search goes on with --resume).",
    )


def _sample(descriptor: int, size: int) -> str:
    sha = hashlib.sha256(size.to_bytes(8, "little"))
    for place, count in _places(size):
        sha.update(os.pread(descriptor, count, place))
    return "sample:" + sha.hexdigest()


@lru_cache(maxsize=4096)
def _places(size: int) -> tuple[tuple[int, int], ...]:
    """(place, bytes) of what is looked at in a file of ``size`` bytes: the same in all files of that size."""
    if size <= 2 * ENDS + BLOCKS * BLOCK:
        return ((0, size),)
    chance = random.Random(size)
    middle = sorted(chance.randrange(ENDS, size - ENDS - BLOCK + 1) for _ in range(BLOCKS))
    return ((0, ENDS), *((place, BLOCK) for place in middle), (size - ENDS, ENDS))
