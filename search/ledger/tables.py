"""The tables of a ledger. Columns are plain text, numbers and bytes, so that any SQL database will do.

A database may hold several runs: all but `Run` are keyed by one. A change here needs a step in `search.migrations`,
which brings older ledgers here, and `VERSION` to name it.
"""

from typing import Any, ClassVar

from sqlalchemy import Double, ForeignKey, ForeignKeyConstraint, LargeBinary, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

VERSION = "3"


class Table(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {float: Double()}


def _of(column: str) -> ForeignKeyConstraint:
    """``column`` holds the id of an individual of the same run."""
    return ForeignKeyConstraint(["run", column], ["individual.run", "individual.id"])


class Run(Table):
    """What a run was started with. Text columns but ``name`` and ``stopped`` are JSON; gram is an ``.npz``."""

    __tablename__ = "run"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    config: Mapped[str]
    digests: Mapped[str]
    tasks: Mapped[str]
    conditions: Mapped[str]
    budget: Mapped[int | None]
    gram: Mapped[bytes] = mapped_column(LargeBinary)
    stopped: Mapped[str | None]


class Individual(Table):
    """Everybody, by ``position`` in the order proposed. recipe: JSON."""

    __tablename__ = "individual"
    __table_args__ = (UniqueConstraint("run", "position"), _of("twin"))
    run: Mapped[int] = mapped_column(ForeignKey("run.id"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    generation: Mapped[int]
    batch: Mapped[int]
    role: Mapped[str]
    recipe: Mapped[str]
    identity: Mapped[str | None]
    kinship: Mapped[float | None]
    twin: Mapped[str | None]


class Parent(Table):
    """Who descends from whom; ``place`` is the parent's in the recipe."""

    __tablename__ = "parent"
    __table_args__ = (_of("child"), _of("parent"))
    run: Mapped[int] = mapped_column(primary_key=True)
    child: Mapped[str] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
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
    """A child outside the span, whose weights are a file: its row of the Gram table, an ``.npz``, and its digest."""

    __tablename__ = "stored"
    __table_args__ = (UniqueConstraint("run", "place"), _of("individual"))
    run: Mapped[int] = mapped_column(primary_key=True)
    individual: Mapped[str] = mapped_column(primary_key=True)
    place: Mapped[int]
    digest: Mapped[str]
    row: Mapped[bytes] = mapped_column(LargeBinary)


class Block(Table):
    """Per-document results, compressed, as they came; ``place`` counts an individual's blocks on a split."""

    __tablename__ = "block"
    __table_args__ = (_of("individual"),)
    run: Mapped[int] = mapped_column(primary_key=True)
    individual: Mapped[str] = mapped_column(primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int]
    results: Mapped[bytes] = mapped_column(LargeBinary)


class Score(Table):
    """What blocks came to. facts: JSON, for the export."""

    __tablename__ = "score"
    __table_args__ = (_of("individual"),)
    run: Mapped[int] = mapped_column(primary_key=True)
    individual: Mapped[str] = mapped_column(primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]
    stderr: Mapped[float | None]
    complete: Mapped[bool]
    facts: Mapped[str]


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
    facts: Mapped[str]
