"""An index of sketches: one SQLite file that tells which of thousands of models are related to a given one."""

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float64
from kinship.errors import InvalidConfig, MalformedCheckpoint, OutputNotWritable, ReferenceNotFound
from kinship.outside import as_stored
from kinship.sketches.sketch import VERSION, WIDTH, Key, Sketch
from kinship.sqlite_files import Trouble, begins_like_one, checksum, damage_of, is_damage

# Standard errors from zero beyond which a correlation of weights is no accident: 1e-15 for one pair of models. Trained
# networks of one kind resemble each other a little whatever they started from, so the least correlation counts as well.
Z_RELATED, LEAST_CORRELATION = 8.0, 0.1

_TABLES = """
CREATE TABLE IF NOT EXISTS about (version INTEGER NOT NULL, width INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS layouts (layout TEXT PRIMARY KEY, keys TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS models (
    id TEXT PRIMARY KEY, layout TEXT NOT NULL REFERENCES layouts, squares BLOB NOT NULL, sums BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS states (id TEXT PRIMARY KEY, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS checksums (id TEXT PRIMARY KEY, checksum INTEGER NOT NULL);
"""
_SUMMED = 1  # user_version of an index whose every model has a checksum


@dataclass(frozen=True)
class Relative:
    """How a model of the index stands to the one asked about, over the tensors that both have.

    correlation: of their weights, estimated. z: in standard errors. distance: Euclidean, estimated, in units of the
    geometric mean of their norms. shared: of the elements sketched of the model asked about, those compared.
    """

    id: str
    related: bool
    correlation: float
    z: float
    distance: float
    shared: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class _Group(NamedTuple):
    """The models of one layout: M ids, ``squares`` (M, T), ``sums`` (M, T, WIDTH)."""

    ids: list[str]
    keys: tuple[Key, ...]
    squares: Float64
    sums: NDArray[np.float32]


class SketchIndex:
    """The index in the file ``path``, made when something is first added.

    Adding is durable and safe from several processes. What is asked is answered from memory after the first question;
    an object does not see what others add later. Bytes a model: about 136 a tensor. It is read once when it is opened,
    and all is compared with its checksums. Raises `MalformedCheckpoint` for a file that is no index, or a damaged one,
    and `InvalidConfig` for one of another version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists():
            self._require_index()

    def add(self, id: str, sketch: Sketch, *, state: str | None = None, force: bool = False) -> None:
        """Keep a sketch under ``id``; raises `InvalidConfig` where another is kept under it, unless ``force``.

        state: what tells later whether the model is still the same, as `Checkpoint.fingerprint` does.
        """
        id = as_stored(id)
        with self._database(write=True) as database:
            known = database.execute("SELECT sums FROM models WHERE id = ?", (id,)).fetchone()
            if known is not None and known[0] != sketch.sums.tobytes() and not force:
                raise InvalidConfig(
                    f"{self._path} has another model called {id!r}.",
                    hint="Replace it with --force, or remove it first.",
                )
            keys = json.dumps(sketch.keys)
            layout = sha256(keys.encode()).hexdigest()
            database.execute("INSERT OR IGNORE INTO layouts VALUES (?, ?)", (layout, keys))
            database.execute(
                "INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?)",
                (id, layout, sketch.squares.astype("<f8").tobytes(), sketch.sums.astype("<f4").tobytes()),
            )
            written = database.execute("SELECT * FROM models WHERE id = ?", (id,)).fetchone()
            database.execute("INSERT OR REPLACE INTO checksums VALUES (?, ?)", (id, checksum(*written)))
            if state is None:
                database.execute("DELETE FROM states WHERE id = ?", (id,))
            else:
                database.execute("INSERT OR REPLACE INTO states VALUES (?, ?)", (id, state))
        self.__dict__.pop("_groups", None)

    def recall(self, id: str, state: str | None) -> Sketch | None:
        """The sketch kept under ``id``, if it was made in this very ``state`` of the model."""
        if state is None or not self._path.exists():
            return None
        id = as_stored(id)
        with self._database() as database:
            if database.execute("SELECT name FROM sqlite_master WHERE name = 'states'").fetchone() is None:
                return None  # an index of before states were kept
            query = "SELECT keys, squares, sums FROM models NATURAL JOIN layouts NATURAL JOIN states"
            row = database.execute(f"{query} WHERE id = ? AND state = ?", (id, state)).fetchone()
        if row is None:
            return None
        sums = np.frombuffer(row[2], dtype="<f4").reshape(-1, WIDTH)
        return Sketch(tuple(Key(*key) for key in json.loads(row[0])), sums, np.frombuffer(row[1], dtype="<f8"))

    def remove(self, id: str) -> None:
        """Forget a model; raises `ReferenceNotFound`."""
        id = as_stored(id)
        with self._database(write=True) as database:
            if database.execute("DELETE FROM models WHERE id = ?", (id,)).rowcount == 0:
                raise ReferenceNotFound(f"{self._path} has no model called {id!r}.", hint="kinship index list INDEX")
            for table in ("states", "checksums"):
                database.execute(f"DELETE FROM {table} WHERE id = ?", (id,))
        self.__dict__.pop("_groups", None)

    @property
    def ids(self) -> list[str]:
        """Every model, by name."""
        with self._database() as database:
            return [id for (id,) in database.execute("SELECT id FROM models ORDER BY id")]

    def query(self, sketch: Sketch) -> list[Relative]:
        """Every model of the index that shares a tensor with ``sketch``, the nearest first, unrelated ones last.

        Cost: about 2 T WIDTH multiply-adds a model, of memory speed.
        """
        found = [relative for group in self._groups for relative in _compare(sketch, group)]
        return sorted(found, key=lambda relative: (not relative.related, relative.distance, relative.id))

    @cached_property
    def _groups(self) -> list[_Group]:
        with self._database() as database:
            groups = []
            for layout, text in database.execute("SELECT layout, keys FROM layouts ORDER BY layout").fetchall():
                rows = database.execute(
                    "SELECT id, squares, sums FROM models WHERE layout = ? ORDER BY id", (layout,)
                ).fetchall()
                if rows:
                    keys = tuple(Key(*key) for key in json.loads(text))
                    squares = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f8").reshape(len(rows), -1)
                    sums = np.frombuffer(b"".join(row[2] for row in rows), dtype="<f4")
                    shape = (len(rows), len(keys), WIDTH)
                    groups.append(_Group([row[0] for row in rows], keys, squares, sums.reshape(shape)))
            return groups

    @contextmanager
    def _database(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        if not write and not self._path.exists():
            raise ReferenceNotFound(
                f"There is no index at {self._path}.", hint="Make one: kinship index add INDEX MODEL"
            )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputNotWritable(
                f"{self._path.parent} cannot be made: {error.strerror}.", hint="Choose another folder."
            ) from error
        try:
            with closing(sqlite3.connect(self._path, timeout=60)) as database, database:
                if write:
                    database.executescript(_TABLES)
                    database.execute("BEGIN IMMEDIATE")
                    _give_checksums(database)
                    if database.execute("SELECT count(*) FROM about").fetchone() == (0,):
                        database.execute("INSERT INTO about VALUES (?, ?)", (VERSION, WIDTH))
                yield database
        except Trouble as error:
            if is_damage(error):
                raise self._damaged(str(error)) from error
            raise OutputNotWritable(
                f"The index {self._path} cannot be used: {error}.", hint="Make room, or see to its permissions."
            ) from error

    def _require_index(self) -> None:
        try:
            with closing(sqlite3.connect(self._path, timeout=60)) as database:
                tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                known = "about" in tables
                found = database.execute("SELECT version, width FROM about").fetchone() if known else None
                self._require_whole(database)
        except Trouble as error:
            if not is_damage(error):
                raise OutputNotWritable(
                    f"The index {self._path} cannot be read: {error}.", hint="See to its permissions."
                ) from error
            if begins_like_one(self._path):
                raise self._damaged(str(error)) from error
            known, tables, found = False, {"?"}, None
        if tables and not known:  # without any table it is new, and somebody may be making it at this moment
            raise MalformedCheckpoint(
                f"{self._path} is no index of sketches.", hint="Give another name, or the index itself."
            )
        if found is not None and found != (VERSION, WIDTH):
            raise InvalidConfig(
                f"{self._path} holds sketches of version {found[0]}; this program makes version {VERSION}.",
                hint="Make the index anew.",
            )

    def _require_whole(self, database: sqlite3.Connection) -> None:
        """Raise `MalformedCheckpoint` where a page or a row is not what was written."""
        database.execute("BEGIN")  # others may write meanwhile: rows and checksums are of one moment
        trouble = damage_of(database)
        if trouble is None and database.execute("PRAGMA user_version").fetchone() == (_SUMMED,):
            sums = dict(database.execute("SELECT id, checksum FROM checksums").fetchall())
            rows = {row[0]: checksum(*row) for row in database.execute("SELECT * FROM models")}
            layouts = database.execute("SELECT layout, keys FROM layouts").fetchall()
            bad = sorted(str(id) for id in sums.keys() | rows.keys() if sums.get(id) != rows.get(id))
            if bad:
                shown = ", ".join(map(repr, bad[:3]))
                trouble = f"{shown} of {len(sums)} models differ from what was written"
            elif any(sha256(str(keys).encode()).hexdigest() != layout for layout, keys in layouts):
                trouble = "the names of tensors differ from what was written"
        if trouble is not None:
            raise self._damaged(trouble)

    def _damaged(self, trouble: str) -> MalformedCheckpoint:
        return MalformedCheckpoint(
            f"The index {self._path} is damaged: {trouble}.",
            hint="Nothing but sketches is in it: delete it, and add the models anew by `kinship index add`.",
        )


def _give_checksums(database: sqlite3.Connection) -> None:
    """To the models of an index of before there were any."""
    if database.execute("PRAGMA user_version").fetchone() != (_SUMMED,):
        rows = database.execute("SELECT * FROM models").fetchall()
        database.executemany(
            "INSERT OR REPLACE INTO checksums VALUES (?, ?)", [(row[0], checksum(*row)) for row in rows]
        )
        database.execute(f"PRAGMA user_version = {_SUMMED}")


def _compare(sketch: Sketch, group: _Group) -> Iterator[Relative]:
    places = {key: place for place, key in enumerate(group.keys)}
    mine = [index for index, key in enumerate(sketch.keys) if key in places]
    if not mine:
        return
    theirs = [places[sketch.keys[index]] for index in mine]
    whole = theirs == list(range(len(group.keys)))
    sums = group.sums if whole else group.sums[:, theirs]
    squares = group.squares if whole else group.squares[:, theirs]
    own_sums, own_squares = sketch.sums[mine], sketch.squares[mine]
    products = np.einsum("mtw,tw->m", sums, own_sums, dtype=np.float64)
    gaps = np.sqrt(_squared_gaps(sums, own_sums))
    norms = np.sqrt(squares.sum(1) * own_squares.sum())
    errors = np.sqrt((squares * own_squares).sum(1) / WIDTH)
    elements = [key.size for key in sketch.keys]
    shared = sum(elements[index] for index in mine) / sum(elements)
    # The cosine rule: where models are near, their distance is known better than their product.
    correlations = (squares.sum(1) + own_squares.sum() - gaps**2) / (2 * norms)
    scores = products / errors
    for id, correlation, z, gap, norm in zip(
        group.ids, correlations.tolist(), scores.tolist(), gaps, norms, strict=True
    ):
        related = z > Z_RELATED and correlation > LEAST_CORRELATION
        yield Relative(id, related, correlation, z, float(gap / math.sqrt(norm)), shared)


def _squared_gaps(sums: NDArray[np.float32], own: NDArray[np.float32]) -> Float64:
    """Squared distances (M,) of ``sums`` (M, T, WIDTH) from ``own`` (T, WIDTH), a few models at a time."""
    step = max(1, (1 << 20) // own.size)
    found = []
    for first in range(0, len(sums), step):
        gaps = sums[first : first + step] - own
        found.append(np.einsum("mtw,mtw->m", gaps, gaps, dtype=np.float64))
    return np.concatenate(found)
