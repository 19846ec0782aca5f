"""Scores already paid for, by the identity of weights, task and settings, document by document."""

import hashlib
import json
import math
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from evaluators.base import Task
from kinship.cache import cache_folder
from kinship.errors import CacheError
from kinship.outside import as_stored

FILE_NAME = "scores.sqlite"
VERSION = 2
DAY = 86_400.0
PATIENCE = 60.0  # seconds that a writer waits for the others

_TABLE = """CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY, documents BLOB NOT NULL, model TEXT NOT NULL DEFAULT '', task TEXT NOT NULL DEFAULT '',
    metric TEXT NOT NULL DEFAULT '', count INTEGER NOT NULL DEFAULT 0, used REAL NOT NULL DEFAULT 0)"""


def default_path() -> Path | None:
    """The user's own cache, shared by all runs: see `kinship.cache.cache_folder`; None where ``KINSHIP_CACHE=off``."""
    folder = cache_folder()
    return folder / FILE_NAME if folder else None


def open_cache(path: Path | None) -> "ScoreCache | None":
    """The cache at ``path``, by default the user's own; None where the user wants none.

    Raises `CacheError` as `ScoreCache` does.
    """
    path = path or default_path()
    return ScoreCache(path) if path else None


@dataclass(frozen=True)
class Entry:
    """What is kept of one model on one task under one set of settings.

    ``model``: what it was called when it was first scored (several models of equal weights share an entry);
    ``count``: documents; ``nbytes``: about what it takes in the file; ``used``: seconds since the epoch, to the day.
    """

    key: str
    model: str
    task: str
    metric: str
    count: int
    nbytes: int
    used: float


class ScoreCache:
    """A SQLite file of per-document results, safe for any number of processes: no result that was stored is lost.

    A result is durable once `store` returns. Any number of threads and processes may read and write one file; each call
    opens it anew. Raises `CacheError` for a file that is none, is damaged, or was written by another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"{path.parent} cannot be made: {error.strerror}.", hint="Give another --cache.") from None
        with self._connected() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            self._create()

    def load(self, identity: str, task: Task) -> dict[int, float]:
        """Results by document of the weights ``identity`` on ``task``; empty where there are none.

        Raises `CacheError` for results that cannot be read back.
        """
        key = _key(identity, task)
        with self._connected() as database:
            row = database.execute("SELECT documents, used FROM results WHERE key = ?", (key,)).fetchone()
        if row is None:
            return {}
        if time.time() - row[1] > DAY:
            with self._writing() as database:
                database.execute("UPDATE results SET used = ? WHERE key = ?", (time.time(), key))
        return self._unpack(key, row[0])

    def store(self, identity: str, task: Task, results: Mapping[int, float], model: str = "") -> None:
        """As `store_all`, of one task."""
        self.store_all(identity, [(task, results)], model)

    def store_all(self, identity: str, results: Iterable[tuple[Task, Mapping[int, float]]], model: str = "") -> None:
        """Add results of the weights ``identity`` to what is known, all or none of them; durable on return.

        ``model`` is kept where there was no name yet.
        """
        with self._writing() as database:
            for task, values in results:
                key = _key(identity, task)
                row = database.execute("SELECT documents, model FROM results WHERE key = ?", (key,)).fetchone()
                known = (self._unpack(key, row[0]) if row else {}) | dict(values)
                name = row[1] if row and row[1] else as_stored(model)
                facts = (key, _pack(known), name, task.name, task.metric, len(known), time.time())
                database.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?)", facts)

    def entries(self) -> list[Entry]:
        """All that is kept, the least recently used first."""
        # The key is stored twice, in the table and in its index.
        nbytes = "length(documents) + 2 * length(key) + length(model) + length(task) + length(metric)"
        query = f"SELECT key, model, task, metric, count, {nbytes}, used FROM results ORDER BY used, key"
        with self._connected() as database:
            return [Entry(*row) for row in database.execute(query)]

    def problem(self, entry: Entry) -> str | None:
        """What is wrong with an entry's results; None for sound ones, and for one removed meanwhile."""
        with self._connected() as database:
            row = database.execute("SELECT documents, count FROM results WHERE key = ?", (entry.key,)).fetchone()
        if row is None:
            return None
        try:
            results = self._unpack(entry.key, row[0])
        except CacheError as error:
            return error.message
        if len(results) != row[1]:
            return f"{row[1]} documents were stored, {len(results)} are there"
        bad = [document for document, value in results.items() if not math.isfinite(value)]
        return f"no finite number on documents {', '.join(map(str, bad[:5]))}" if bad else None

    def damage(self) -> str | None:
        """What SQLite finds wrong with the file itself; None for a sound one."""
        with self._connected() as database:
            (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
        return None if found == "ok" else str(found)

    def remove(self, entries: list[Entry]) -> None:
        """Forget ``entries`` and give their space back to the file system."""
        with self._writing() as database:
            database.executemany("DELETE FROM results WHERE key = ?", [(entry.key,) for entry in entries])
        with self._connected() as database:
            database.execute("VACUUM")

    def _create(self) -> None:
        with self._writing() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()  # another process may have been first
            if version not in (0, VERSION):
                raise CacheError(
                    f"{self.path} has version {version} of the score cache; this program reads {VERSION}.",
                    hint="Update model-kinship, or give another --cache.",
                )
            database.execute(_TABLE)
            columns = {row[1] for row in database.execute("PRAGMA table_info(results)")}
            if not {"key", "documents", "count", "used"} <= columns:
                raise CacheError(f"{self.path} is no score cache.", hint="Give another --cache.")
            database.execute(f"PRAGMA user_version = {VERSION}")

    def _unpack(self, key: str, blob: bytes) -> dict[int, float]:
        try:
            return {int(document): float(value) for document, value in json.loads(zlib.decompress(blob)).items()}
        except (zlib.error, ValueError, AttributeError, TypeError):
            raise CacheError(
                f"The results under {key[:12]} in {self.path} cannot be read.",
                hint="Remove them by `kinship cache prune --broken`.",
            ) from None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that no other writer can come between: kept whole, or not at all."""
        with self._connected() as database:
            database.execute("BEGIN IMMEDIATE")
            with database:
                yield database

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)) as database:
                yield database
        except sqlite3.Error as error:
            raise CacheError(
                f"The score cache {self.path} cannot be used: {error}.",
                hint="Mend or delete it, or give another --cache.",
            ) from None


def _key(identity: str, task: Task) -> str:
    return hashlib.sha256(f"{identity}:{task.digest}".encode()).hexdigest()


def _pack(results: Mapping[int, float]) -> bytes:
    return zlib.compress(json.dumps(results).encode())
