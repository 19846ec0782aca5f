"""The tables of a ledger. Columns are plain text, numbers and bytes, so that any SQL database will do.

A database may hold several runs: all but `Run` are keyed by one. A change here needs a step in `search.migrations`,
which brings older ledgers here, and `VERSION` to name it.
"""

import io
import json
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from sqlalchemy import (
    BigInteger,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    LargeBinary,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from evaluators.scores.score import Results
from kinship.arrays import Float64, read_arrays
from kinship.measures.gram import GramTable

VERSION = "2"


class Json(TypeDecorator[Any]):
    """Plain data, as JSON."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        """To text."""
        return json.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """From text."""
        return json.loads(value)


class Gram(TypeDecorator[GramTable]):
    """A Gram table, as the ``.npz`` of `GramTable.save`."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: GramTable | None, dialect: Dialect) -> bytes:
        """To bytes."""
        assert value is not None
        file = io.BytesIO()
        value.save(file)
        return file.getvalue()

    def process_result_value(self, value: Any, dialect: Dialect) -> GramTable:
        """From bytes."""
        return GramTable.load(io.BytesIO(value))


class Arrays(TypeDecorator[Mapping[str, Float64]]):
    """Arrays by name, as ``.npz``."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, Float64] | None, dialect: Dialect) -> bytes:
        """To bytes."""
        file = io.BytesIO()
        np.savez(file, **(value or {}))  # type: ignore[arg-type]
        return file.getvalue()

    def process_result_value(self, value: Any, dialect: Dialect) -> Mapping[str, Float64]:
        """From bytes."""
        return read_arrays(io.BytesIO(value))


class ByDocument(TypeDecorator[Results]):
    """Results by task and document, as compressed JSON: by task, the documents and their values."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Results | None, dialect: Dialect) -> bytes:
        """To bytes."""
        given = (value or {}).items()
        content = {task: [sorted(values), [values[key] for key in sorted(values)]] for task, values in given}
        return zlib.compress(json.dumps(content).encode())

    def process_result_value(self, value: Any, dialect: Dialect) -> Results:
        """From bytes."""
        content = json.loads(zlib.decompress(value))
        return {task: dict(zip(documents, values, strict=True)) for task, (documents, values) in content.items()}


class Table(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {float: Double()}


def _of(column: str) -> ForeignKeyConstraint:
    """``column`` holds the id of an individual of the same run."""
    return ForeignKeyConstraint(["run", column], ["individual.run", "individual.id"])


class Run(Table):
    """What a run was started with, and why it stopped."""

    __tablename__ = "run"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    config: Mapped[dict[str, Any]] = mapped_column(Json)
    digests: Mapped[dict[str, str]] = mapped_column(Json)
    tasks: Mapped[dict[str, dict[str, str]]] = mapped_column(Json)
    conditions: Mapped[dict[str, str]] = mapped_column(Json)
    budget: Mapped[int | None]
    gram: Mapped[GramTable] = mapped_column(Gram, deferred=True)  # the one that is large
    stopped: Mapped[str | None]


class Individual(Table):
    """Everybody, by ``position`` in the order proposed."""

    __tablename__ = "individual"
    __table_args__ = (UniqueConstraint("run", "position"), _of("twin"))
    run: Mapped[int] = mapped_column(ForeignKey("run.id"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    generation: Mapped[int]
    batch: Mapped[int]
    role: Mapped[str]
    recipe: Mapped[dict[str, Any]] = mapped_column(Json)
    identity: Mapped[str | None]
    kinship: Mapped[float | None]
    twin: Mapped[str | None]


class Parent(Table):
    """Who descends from whom; ``position`` is the parent's in the recipe."""

    __tablename__ = "parent"
    __table_args__ = (_of("child"), _of("parent"))
    run: Mapped[int] = mapped_column(primary_key=True)
    child: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    parent: Mapped[str]


class Genome(Table):
    """Coefficients of so many tensors, compressed. Apart from `Individual`, so that reading those reads none of it."""

    __tablename__ = "genome"
    __table_args__ = (_of("individual"),)
    run: Mapped[int] = mapped_column(primary_key=True)
    individual: Mapped[str] = mapped_column(primary_key=True)
    tensors: Mapped[int]
    coefficients: Mapped[bytes] = mapped_column(LargeBinary)


class Stored(Table):
    """A child outside the span, whose weights are a file: its row of the Gram table and its digest."""

    __tablename__ = "stored"
    __table_args__ = (UniqueConstraint("run", "position"), _of("individual"))
    run: Mapped[int] = mapped_column(primary_key=True)
    individual: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    digest: Mapped[str]
    row: Mapped[Mapping[str, Any]] = mapped_column(Arrays)


class Block(Table):
    """Per-document results as they came; ``position`` counts an individual's blocks on a split."""

    __tablename__ = "block"
    __table_args__ = (_of("individual"),)
    run: Mapped[int] = mapped_column(primary_key=True)
    individual: Mapped[str] = mapped_column(primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int]
    results: Mapped[Results] = mapped_column(ByDocument)


class Score(Table):
    """What blocks came to. facts: for the export."""

    __tablename__ = "score"
    __table_args__ = (_of("individual"),)
    run: Mapped[int] = mapped_column(primary_key=True)
    individual: Mapped[str] = mapped_column(primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]
    stderr: Mapped[float | None]
    complete: Mapped[bool]
    facts: Mapped[dict[str, Any]] = mapped_column(Json)


class Failure(Table):
    """Why an individual could not be merged or scored."""

    __tablename__ = "failure"
    __table_args__ = (_of("individual"),)
    run: Mapped[int] = mapped_column(primary_key=True)
    individual: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    message: Mapped[str]
    traceback: Mapped[str]
    attempts: Mapped[int]


class Event(Table):
    """The diary of a run. time: UTC, ISO 8601. seconds: of work until then, all sessions together."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[int] = mapped_column(ForeignKey("run.id"))
    time: Mapped[str]
    seconds: Mapped[float]
    name: Mapped[str]
    facts: Mapped[dict[str, Any]] = mapped_column(Json)


class Checksum(Table):
    """Of one row of the table ``of``: see `search.ledger.checksums`. None in a server, which keeps its own."""

    __tablename__ = "checksum"
    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[int] = mapped_column(ForeignKey("run.id"))
    of: Mapped[str]
    checksum: Mapped[int] = mapped_column(BigInteger)
