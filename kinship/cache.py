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

from kinship.file_state import FileState

MAX_BYTES = 500_000_000  # beyond this the oldest entries are dropped

Answer = TypeVar("Answer")

_TABLE = """CREATE TABLE IF NOT EXISTS facts (
    kind TEXT NOT NULL, key TEXT NOT NULL, detail TEXT NOT NULL, value BLOB NOT NULL, used REAL NOT NULL,
    PRIMARY KEY (kind, key, detail))"""


def cache_folder() -> Path | None:
    """The folder of everything remembered; None where the user wants none."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("KINSHIP_CACHE", "")
    if chosen.lower() in ("off", "0", "no", "false"):
        return None
    return Path(chosen).expanduser() if chosen else user_cache_path("model-kinship")


def fingerprint(states: Mapping[Path, FileState]) -> str | None:
    """Changes whenever one of these files does; None for files so young that a change might go unseen."""
    if any(state.young for state in states.values()):
        return None
    facts = sorted((str(file.resolve()), list(vars(state).values())) for file, state in states.items())
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def recall(kind: str, key: str, wanted: Callable[[str], bool] = lambda detail: True) -> tuple[str, bytes] | None:
    """(detail, value) of the latest fact of this ``kind`` under ``key`` of a ``wanted`` detail; it alone is read."""

    def find(database: sqlite3.Connection) -> tuple[str, bytes] | None:
        query = "SELECT rowid, detail FROM facts WHERE kind = ? AND key = ? ORDER BY used DESC"
        for row, detail in database.execute(query, (kind, key)):
            if wanted(detail):
                (value,) = database.execute("SELECT value FROM facts WHERE rowid = ?", (row,)).fetchone()
                return detail, value
        return None

    return _with_database(find)


def remember(kind: str, key: str, value: bytes, detail: str = "") -> None:
    """Keep ``value``, in place of what is known under the same words; drop the oldest where there is too much."""

    def keep(database: sqlite3.Connection) -> None:
        facts = (kind, key, detail, value, time.time())
        database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?)", facts)
        total = 0
        for row, size in database.execute("SELECT rowid, length(value) FROM facts ORDER BY used DESC").fetchall():
            total += size
            if total > MAX_BYTES:
                database.execute("DELETE FROM facts WHERE rowid = ?", (row,))

    _with_database(keep)


def _with_database(action: Callable[[sqlite3.Connection], Answer]) -> Answer | None:
    """What ``action`` returns, in one transaction; None where nothing is kept, or the file cannot be used."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(folder / "kinship.sqlite", timeout=30)) as database, database:
            database.execute(_TABLE)
            return action(database)
    except (OSError, sqlite3.Error) as error:
        warnings.warn(f"Nothing is remembered in {folder}: {error}", stacklevel=3)
        return None
