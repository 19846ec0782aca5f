"""SQLite files of ours that flipped bits must not turn into wrong answers: what matters has a checksum beside it."""

import os
import sqlite3
import struct
import time
import zlib
from contextlib import closing
from pathlib import Path

from filelock import FileLock

MAGIC = b"SQLite format 3\0"
Trouble = (sqlite3.Error, UnicodeDecodeError)  # the latter for texts that a flipped bit made none
# What the system or another process is the reason of, not the file.
_OF_THE_SYSTEM = (
    *("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_BUSY", "SQLITE_LOCKED"),
    *("SQLITE_PERM", "SQLITE_AUTH", "SQLITE_NOMEM", "SQLITE_PROTOCOL", "SQLITE_INTERRUPT"),
)
_IN_THE_FILE = ("SQLITE_IOERR_SHORT_READ", "SQLITE_IOERR_CORRUPTFS")


_length, _float = struct.Struct("<Q").pack, struct.Struct("<d").pack
_TEXTS, _NUMBERS = ([kind + _length(size) for size in range(1024)] for kind in (b"t", b"i"))
_NONE, _FLOAT = b"n" + _length(0), b"f" + _length(8)


def checksum(*values: object) -> int:
    """CRC-32 of a row's values as SQLite hands them out, each with its type: every flip within one byte changes it.

    >>> checksum("a", 1, 1.0, None, b"x") == checksum("a", 1, 1.0, None, b"x") != checksum("a", 1.0, 1, None, b"x")
    True
    """
    parts: list[bytes] = []
    for value in values:  # the commonest first, and short: a server does this for every row of a ledger it shows
        if isinstance(value, str):
            content = value.encode("utf-8", "surrogatepass")
            size = len(content)
            parts += _TEXTS[size] if size < 1024 else b"t" + _length(size), content
        elif isinstance(value, int):
            content = b"%d" % value
            parts += _NUMBERS[len(content)], content
        elif value is None:
            parts.append(_NONE)
        elif isinstance(value, float):
            parts += _FLOAT, _float(value)
        elif isinstance(value, bytes):
            parts += b"b", _length(len(value)), value
        else:
            raise TypeError(f"SQLite holds no {type(value).__name__}")
    return zlib.crc32(b"".join(parts))


def is_damage(error: Exception) -> bool:
    """Whether ``error`` of `sqlite3` says that the file is damaged, or no database at all.

    No damage: a full disk, a missing permission, another process that holds it.
    """
    if not isinstance(error, sqlite3.Error):
        return isinstance(error, UnicodeDecodeError)
    name = getattr(error, "sqlite_errorname", None) or ""
    return name.startswith(_IN_THE_FILE) or not name.startswith(_OF_THE_SYSTEM)


def damage_of(database: sqlite3.Connection) -> str | None:
    """What SQLite finds wrong with the file, pages and indices alike; None for a sound one. Cost: one reading of it."""
    try:
        (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    except Trouble as error:
        if not is_damage(error):
            raise
        return str(error)
    return None if found == "ok" else str(found).strip().splitlines()[-1]


def only_to_be_read(path: Path) -> bool:
    """Whether the database at ``path`` is there and may not be written: by its permissions, or those of its folder."""
    return path.is_file() and not (os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK | os.X_OK))


def connected_to_read(path: Path) -> sqlite3.Connection:
    """A connection, for any thread, to a database that is `only_to_be_read`.

    SQLite reads one in WAL mode only beside a file of locks, which it makes where there is none. Where it cannot be
    made and no change waits in a -wal file, nobody writes, and nothing has to be locked.
    """
    at_rest = not any(path.with_name(path.name + ending).exists() for ending in ("-wal", "-journal"))
    address = f"{path.absolute().as_uri()}?mode=ro" + ("&immutable=1" if at_rest else "")
    return sqlite3.connect(address, uri=True, check_same_thread=False)


def begins_like_one(path: Path) -> bool:
    """Whether a file begins as databases of SQLite do, or nearly: a few bytes of that may be flipped. Or is empty."""
    with open(path, "rb") as file:
        start = file.read(len(MAGIC))
    return not start or sum(one == other for one, other in zip(start, MAGIC, strict=False)) >= len(MAGIC) - 4


def set_aside(path: Path, probe: str, *, ours: bool) -> Path | None:
    """Rename a damaged database; returns its new path, None where another process has put a sound one there.

    probe: a query that a sound one answers. ours: surely, by its place. Else raises `FileExistsError` for what does not
    even begin like a database, and for a sound one that is another's.
    """
    with FileLock(path.with_name(path.name + ".lock"), timeout=60):
        if not ours and not begins_like_one(path):
            raise FileExistsError(f"{path} is no database")
        whole, answers = _looked_at(path, probe)
        if whole and answers:
            return None
        if whole and not ours:
            raise FileExistsError(f"{path} is another database")
        aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        os.replace(path, aside)
        for ending in ("-wal", "-shm", "-journal"):
            if path.with_name(path.name + ending).exists():
                os.replace(path.with_name(path.name + ending), aside.with_name(aside.name + ending))
    return aside


def _looked_at(path: Path, probe: str) -> tuple[bool, bool]:
    """Whether the database is whole, and whether it answers ``probe``."""
    with closing(sqlite3.connect(path, timeout=60)) as database:
        try:
            if damage_of(database) is not None:
                return False, False
            database.execute(probe).fetchone()
        except Trouble:
            return True, False
    return True, True
