"""Scores already paid for, by the identity of weights, task and settings, document by document."""

import hashlib
import json
import math
import sqlite3
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from evaluators.base import Task
from kinship.cache import cache_folder
from kinship.errors import CacheError, KinshipWarning
from kinship.outside import as_stored
from kinship.sqlite_files import Trouble, damage_of, is_damage, only_to_be_read, set_aside

FILE_NAME = "scores.sqlite"
VERSION = 3  # 2 had no checksums; they are added when it is first opened
DAY = 86_400.0
SEAL = 8  # bytes of a digest before each row's results
PATIENCE = 60.0  # seconds that a writer waits for the others

Answer = TypeVar("Answer")

_TABLE = """CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY, documents BLOB NOT NULL, model TEXT NOT NULL DEFAULT '', task TEXT NOT NULL DEFAULT '',
    metric TEXT NOT NULL DEFAULT '', count INTEGER NOT NULL DEFAULT 0, used REAL NOT NULL DEFAULT 0)"""
_DOCUMENTS = "coalesce(CAST(documents AS BLOB), x'')"  # whatever type a flipped bit gives them
_PROBE = "SELECT key, documents, model, task, metric, count, used FROM results LIMIT 1"


def default_path() -> Path | None:
    """The user's own cache, shared by all runs: see `kinship.cache.cache_folder`; None where ``KINSHIP_CACHE=off``."""
    folder = cache_folder()
    return folder / FILE_NAME if folder else None


def open_cache(path: str | Path | None) -> "ScoreCache | None":
    """The cache at ``path``, by default the user's own; None where the user wants none, or it cannot be used.

    Raises `CacheError` as `ScoreCache` does, for a ``path`` that was given; the user's own costs a warning.
    """
    if path:
        return ScoreCache(path)
    own = default_path()
    try:
        return ScoreCache(own) if own else None
    except CacheError as error:
        warnings.warn(f"{error.message} Scores are not kept.", KinshipWarning, stacklevel=2)
        return None


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
    opens it anew. A damaged file is set aside for a new one, with a warning; damaged results are not there any more,
    and found out anew. Raises `CacheError` for a file that is none, or was written by a later version; also for a
    damaged one, unless ``mend``.
    """

    def __init__(self, path: str | Path, *, mend: bool = True) -> None:
        self.path, self._mend = (path := Path(path)), mend
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"{path.parent} cannot be made: {error.strerror}.", hint="Give another --cache.") from None
        self._mended(self._create)

    def load(self, identity: str, task: Task) -> dict[int, float]:
        """Results by document of the weights ``identity`` on ``task``; empty where there are none.

        Results that are damaged are forgotten, with a warning.
        """
        key = _key(identity, task)
        row = self._mended(lambda: self._row(key))
        if row is None:
            return {}
        if not 0 <= time.time() - row[1] <= DAY and not only_to_be_read(self.path):
            with self._writing() as database:
                database.execute("UPDATE results SET used = ? WHERE key = ?", (time.time(), key))
        return self._known(key, row[0])

    def _row(self, key: str) -> tuple[bytes, float] | None:
        with self._connected() as database:
            row = database.execute(
                f"SELECT {_DOCUMENTS}, CAST(used AS REAL) FROM results WHERE key = ?", (key,)
            ).fetchone()
        return (row[0], row[1] or 0.0) if row else None

    def store(self, identity: str, task: Task, results: Mapping[int, float], model: str = "") -> None:
        """As `store_all`, of one task."""
        self.store_all(identity, [(task, results)], model)

    def store_all(self, identity: str, results: Iterable[tuple[Task, Mapping[int, float]]], model: str = "") -> None:
        """Add results of the weights ``identity`` to what is known, all or none of them; durable on return.

        ``model`` is kept where there was no name yet.
        """
        given = [(task, dict(values)) for task, values in results]
        self._mended(lambda: self._store(identity, given, model))

    def _store(self, identity: str, results: Sequence[tuple[Task, dict[int, float]]], model: str) -> None:
        with self._writing() as database:
            for task, values in results:
                key = _key(identity, task)
                row = database.execute(
                    f"SELECT {_DOCUMENTS}, CAST(model AS TEXT) FROM results WHERE key = ?", (key,)
                ).fetchone()
                known = (self._known(key, row[0]) if row else {}) | values
                name = row[1] if row and row[1] else as_stored(model)
                facts = (key, _pack(key, known), name, task.name, task.metric, len(known), time.time())
                database.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?)", facts)

    def entries(self) -> list[Entry]:
        """All that is kept, the least recently used first."""
        # The key is stored twice, in the table and in its index.
        nbytes = "length(documents) + 2 * length(key) + length(model) + length(task) + length(metric)"
        texts = ", ".join(f"coalesce(CAST({name} AS TEXT), '')" for name in ("key", "model", "task", "metric"))
        numbers = f"coalesce(CAST(count AS INTEGER), 0), {nbytes}, coalesce(CAST(used AS REAL), 0.0)"
        query = f"SELECT {texts}, {numbers} FROM results ORDER BY used, key"
        with self._connected() as database:
            return [Entry(*row) for row in database.execute(query)]

    def problem(self, entry: Entry) -> str | None:
        """What is wrong with an entry's results; None for sound ones, and for one removed meanwhile."""
        with self._connected() as database:
            row = database.execute(f"SELECT {_DOCUMENTS}, count FROM results WHERE key = ?", (entry.key,)).fetchone()
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
            return damage_of(database)

    def remove(self, entries: list[Entry]) -> None:
        """Forget ``entries`` and give their space back to the file system."""
        with self._writing() as database:
            database.executemany("DELETE FROM results WHERE key = ?", [(entry.key,) for entry in entries])
        with self._connected() as database:
            database.execute("VACUUM")

    def _create(self) -> None:
        """Make the table, or bring it up to date."""
        with self._connected() as database:
            if database.execute("PRAGMA user_version").fetchone() == (VERSION,):
                database.execute(_PROBE)
                return
        with self._writing() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()  # another process may have been first
            if version not in (0, 2, VERSION):
                raise CacheError(
                    f"{self.path} has version {version} of the score cache; this program reads {VERSION}.",
                    hint="Update model-kinship, or give another --cache.",
                )
            database.execute(_TABLE)
            columns = {row[1] for row in database.execute("PRAGMA table_info(results)")}
            if not {"key", "documents", "count", "used"} <= columns:
                raise CacheError(f"{self.path} is no score cache.", hint="Give another --cache.")
            if version == 2:
                rows = database.execute(f"SELECT key, {_DOCUMENTS} FROM results").fetchall()
                sealed = [(_sealed(key, blob), key) for key, blob in rows if not _is_sealed(key, blob)]
                database.executemany("UPDATE results SET documents = ? WHERE key = ?", sealed)
            database.execute(f"PRAGMA user_version = {VERSION}")

    def _mended(self, action: Callable[[], Answer]) -> Answer:
        """What ``action`` returns; where the file turns out to be damaged, it is set aside and begun anew first."""
        try:
            return action()
        except _Damaged as damaged:
            if not self._mend:
                raise
            try:
                aside = set_aside(self.path, _PROBE, ours=self.path == default_path())
            except FileExistsError:
                raise CacheError(f"{self.path} is no score cache.", hint="Give another --cache.") from None
            except OSError as error:
                raise CacheError(
                    f"{damaged.message} It could not be set aside: {error}.", hint="Give another --cache."
                ) from None
            if aside:
                warnings.warn(
                    f"{damaged.message} It was set aside as {aside.name} and begun anew; what it held is scored again.",
                    KinshipWarning,
                    stacklevel=2,
                )
        self._create()
        return action()

    def _known(self, key: str, blob: bytes) -> dict[int, float]:
        """As `_unpack`; nothing, and a warning, where the results are damaged."""
        try:
            return self._unpack(key, blob)
        except CacheError as error:
            warnings.warn(f"{error.message} They are found out anew.", KinshipWarning, stacklevel=2)
            return {}

    def _unpack(self, key: str, blob: bytes) -> dict[int, float]:
        try:
            if not _is_sealed(key, blob):
                raise ValueError
            content = json.loads(zlib.decompress(blob[SEAL:]))
            return {int(document): float(value) for document, value in content.items()}
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
        except Trouble as error:
            message, mend = f"The score cache {self.path} cannot be used: {error}.", "or give another --cache."
            if is_damage(error):
                raise _Damaged(message, hint=f"Mend or delete it, {mend}") from None
            raise CacheError(message, hint=f"See to its permissions and to the room on its disk, {mend}") from None


def _key(identity: str, task: Task) -> str:
    return hashlib.sha256(f"{identity}:{task.digest}".encode()).hexdigest()


def _pack(key: str, results: Mapping[int, float]) -> bytes:
    return _sealed(key, zlib.compress(json.dumps(results).encode()))


def _sealed(key: str, content: bytes) -> bytes:
    """``content`` after a digest of it and of the key it belongs to: a flipped bit may lead from one to another."""
    return hashlib.sha256(key.encode() + content).digest()[:SEAL] + content


def _is_sealed(key: str, blob: bytes) -> bool:
    return blob == _sealed(key, blob[SEAL:])


class _Damaged(CacheError):
    """The file itself is damaged."""
