"""Scores already paid for, by the identity of weights, task and settings, document by document."""

import hashlib
import json
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

from evaluators.base import Task


def default_path() -> Path:
    """The user's own cache, shared by all runs."""
    from platformdirs import user_cache_path

    return user_cache_path("model-kinship") / "scores.sqlite"


class ScoreCache:
    """A SQLite file of per-document results. Safe for several processes; a lost race costs one evaluation."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with closing(self._connect()) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, documents BLOB NOT NULL)")

    def load(self, identity: str, task: Task) -> dict[int, float]:
        """Results by document of the weights ``identity`` on ``task``; empty where there are none."""
        with closing(self._connect()) as connection:
            row = connection.execute("SELECT documents FROM results WHERE key = ?", (_key(identity, task),)).fetchone()
        if row is None:
            return {}
        return {int(document): float(value) for document, value in json.loads(zlib.decompress(row[0])).items()}

    def store(self, identity: str, task: Task, results: dict[int, float]) -> None:
        """Add ``results`` to what is known; durable on return."""
        merged = self.load(identity, task) | results
        blob = zlib.compress(json.dumps(merged).encode())
        with closing(self._connect()) as connection, connection:
            connection.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (_key(identity, task), blob))

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=60)


def _key(identity: str, task: Task) -> str:
    return hashlib.sha256(f"{identity}:{task.digest}".encode()).hexdigest()
