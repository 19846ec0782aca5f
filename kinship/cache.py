"""What was computed from files, kept on disk for as long as those files stay as they are.

Files are known by path and state (`kinship.file_state`), not by hashing them: to hash a file takes longer than the
Gram pass over it. The user's cache folder holds it all, or the folder that the environment variable KINSHIP_CACHE
names; ``KINSHIP_CACHE=off`` keeps nothing. Losing the cache loses time alone; trouble with it is a warning.
"""

import hashlib
import json
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from kinship.errors import KinshipWarning
from kinship.file_state import FileState
from kinship.sqlite_files import Trouble, checksum, is_damage, set_aside

MAX_BYTES = 500_000_000  # beyond this the oldest entries are dropped
FILE_NAME = "kinship.sqlite"

Answer = TypeVar("Answer")

_VERSION = 2  # 1 had no checksums, so that what it remembers is not believed
_TABLE = """CREATE TABLE IF NOT EXISTS known (
    kind TEXT NOT NULL, key TEXT NOT NULL, detail TEXT NOT NULL, value BLOB NOT NULL, used REAL NOT NULL,
    checksum INTEGER NOT NULL, PRIMARY KEY (kind, key, detail))"""
_PROBE = "SELECT kind, key, detail, value, used, checksum FROM known LIMIT 1"


def cache_folder() -> Path | None:
    """The folder of everything remembered; None where the user wants none, or has no home that could hold it."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("KINSHIP_CACHE", "")
    if chosen.lower() in ("off", "0", "no", "false"):
        return None
    if chosen:
        place = os.path.expanduser(chosen)
        if place.startswith("~"):
            _warn(f"Nothing is remembered: KINSHIP_CACHE is in the home of a user who is not known, {chosen}.")
            return None
        return Path(place)
    try:
        folder = user_cache_path("model-kinship")
    except RuntimeError:  # nobody knows the user's home
        return None
    return folder if folder.is_absolute() else None


def fingerprint(states: Mapping[Path, FileState]) -> str | None:
    """Changes whenever one of these files does; None for files so young that a change might go unseen."""
    if any(state.young for state in states.values()):
        return None
    facts = sorted((str(file.resolve()), list(vars(state).values())) for file, state in states.items())
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def recall(kind: str, key: str, wanted: Callable[[str], bool] = lambda detail: True) -> tuple[str, bytes] | None:
    """(detail, value) of the latest fact of this ``kind`` under ``key`` of a ``wanted`` detail; it alone is read."""

    def find(database: sqlite3.Connection) -> tuple[str, bytes] | None:
        query = "SELECT rowid, detail FROM known WHERE kind = ? AND key = ? ORDER BY used DESC"
        for row, detail in database.execute(query, (kind, key)).fetchall():
            try:
                if not wanted(detail):
                    continue
            except (ValueError, LookupError, TypeError):  # it cannot be what was written
                value, found = None, None
            else:
                query = "SELECT value, checksum FROM known WHERE rowid = ?"
                value, found = database.execute(query, (row,)).fetchone() or (None, None)
            if value is not None and found == checksum(kind, key, detail, value):
                return detail, value
            database.execute("DELETE FROM known WHERE rowid = ?", (row,))
            _warn(f"Something remembered in {cache_folder()} was damaged; it is found out anew.")
        return None

    return _with_database(find)


def remember(kind: str, key: str, value: bytes, detail: str = "") -> None:
    """Keep ``value``, in place of what is known under the same words; drop the oldest where there is too much."""

    def keep(database: sqlite3.Connection) -> None:
        facts = (kind, key, detail, value, time.time(), checksum(kind, key, detail, value))
        database.execute("INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?)", facts)
        total = 0
        for row, size in database.execute("SELECT rowid, length(value) FROM known ORDER BY used DESC").fetchall():
            total += size
            if total > MAX_BYTES:
                database.execute("DELETE FROM known WHERE rowid = ?", (row,))

    _with_database(keep)


def _with_database(action: Callable[[sqlite3.Connection], Answer]) -> Answer | None:
    """What ``action`` returns, in one transaction; None where nothing is kept, or the file cannot be used.

    A damaged file is set aside, and a new one begun.
    """
    folder = cache_folder()
    if folder is None:
        return None
    file = folder / FILE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return _in_transaction(file, action)
        except Trouble as error:
            if not is_damage(error):
                raise
            if aside := set_aside(file, _PROBE, ours=True):
                _warn(f"{file} was damaged ({error}); it was set aside as {aside.name} and begun anew.")
            return _in_transaction(file, action)
    except (OSError, *Trouble) as error:
        _warn(f"Nothing is remembered in {folder}: {error}")
        return None


def _in_transaction(file: Path, action: Callable[[sqlite3.Connection], Answer]) -> Answer:
    with closing(sqlite3.connect(file, timeout=30)) as database, database:
        if database.execute("PRAGMA user_version").fetchone() != (_VERSION,):
            database.execute("DROP TABLE IF EXISTS facts")
            database.execute(_TABLE)
            database.execute(f"PRAGMA user_version = {_VERSION}")
        return action(database)


def _warn(text: str) -> None:
    warnings.warn(text, KinshipWarning, stacklevel=2)
