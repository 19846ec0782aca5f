"""What a comparison has done, arm by arm, in one SQLite file that a kill at any moment leaves whole."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from kinship.errors import CacheError
from kinship.sqlite_files import Trouble, checksum
from search.comparison.cost import Cost

NAME = "comparison.sqlite"


@dataclass(frozen=True)
class Done:
    """An arm that was made and scored. identity: of its weights. evaluation: None where they had been scored before;
    else for so many ``documents``.
    """

    identity: str
    merge: Cost | None = None
    statistics: Cost | None = None
    evaluation: Cost | None = None
    documents: int = 0


class Store:
    """Arms that are done, by key; used by one process at a time, which holds the folder's lock.

    An arm is durable once `add` returns. A row whose checksum is wrong is as if it were not there: it is done again.
    Raises `CacheError` where the file is no such store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as database:
            database.execute("CREATE TABLE IF NOT EXISTS arms (key TEXT PRIMARY KEY, done TEXT, checksum INTEGER)")

    def add(self, key: str, done: Done) -> None:
        """Keep what was done."""
        text = json.dumps(asdict(done), sort_keys=True)
        with self._open() as database:
            database.execute("INSERT OR REPLACE INTO arms VALUES (?, ?, ?)", (key, text, checksum(key, text)))

    def all(self) -> dict[str, Done]:
        """Everything that was done, by key."""
        with self._open() as database:
            rows = database.execute("SELECT key, done, checksum FROM arms").fetchall()
        return {key: _done(json.loads(text)) for key, text, sum in rows if checksum(key, text) == sum}

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path)) as database, database:
                database.execute("PRAGMA synchronous = FULL")
                yield database
        except Trouble as error:
            raise CacheError(
                f"{self.path} cannot be used: {error}.",
                hint="Free space, or move the file away: what is in it is then done again.",
            ) from error


def arms_in(folder: Path) -> int:
    """How many arms are done there. Raises `CacheError`."""
    file = folder / NAME
    return len(Store(file).all()) if file.is_file() else 0


def _done(facts: dict[str, object]) -> Done:
    costs = {
        name: Cost(**facts[name]) if facts[name] else None  # type: ignore[arg-type]
        for name in ("merge", "statistics", "evaluation")
    }
    return Done(**(facts | costs))  # type: ignore[arg-type]
