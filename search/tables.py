"""The tables of a ledger. Columns are plain text, numbers and bytes, so that any SQL database will do."""

from sqlalchemy import ForeignKey, LargeBinary
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

VERSION = 2  # 1 kept one score a split and no documents of candidates that were not yet scored


class Table(DeclarativeBase):
    """Base of all tables."""


class Run(Table):
    """The one run of a ledger. Text columns but ``schema_version`` and ``stopped`` are JSON; gram is an ``.npz``."""

    __tablename__ = "run"
    id: Mapped[int] = mapped_column(primary_key=True)
    schema_version: Mapped[int]
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
    id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(unique=True)
    generation: Mapped[int]
    batch: Mapped[int]
    role: Mapped[str]
    recipe: Mapped[str]
    identity: Mapped[str | None]
    kinship: Mapped[float | None]
    twin: Mapped[str | None] = mapped_column(ForeignKey("individual.id"))


class Parent(Table):
    """Who descends from whom; ``place`` is the parent's in the recipe."""

    __tablename__ = "parent"
    child: Mapped[str] = mapped_column(ForeignKey("individual.id"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    parent: Mapped[str] = mapped_column(ForeignKey("individual.id"))


class Genome(Table):
    """Coefficients of so many tensors, compressed. Apart from `Individual`, so that reading those reads none of it."""

    __tablename__ = "genome"
    individual: Mapped[str] = mapped_column(ForeignKey("individual.id"), primary_key=True)
    tensors: Mapped[int]
    coefficients: Mapped[bytes] = mapped_column(LargeBinary)


class Stored(Table):
    """A child outside the span, whose weights are a file: its row of the Gram table, an ``.npz``, and its digest."""

    __tablename__ = "stored"
    individual: Mapped[str] = mapped_column(ForeignKey("individual.id"), primary_key=True)
    place: Mapped[int] = mapped_column(unique=True)
    digest: Mapped[str]
    row: Mapped[bytes] = mapped_column(LargeBinary)


class Block(Table):
    """Per-document results, compressed, as they came; ``place`` counts an individual's blocks on a split."""

    __tablename__ = "block"
    individual: Mapped[str] = mapped_column(ForeignKey("individual.id"), primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int]
    results: Mapped[bytes] = mapped_column(LargeBinary)


class Score(Table):
    """What blocks came to. facts: JSON, for the export."""

    __tablename__ = "score"
    individual: Mapped[str] = mapped_column(ForeignKey("individual.id"), primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]
    stderr: Mapped[float | None]
    complete: Mapped[bool]
    facts: Mapped[str]


class Failure(Table):
    """Why an individual could not be merged or scored."""

    __tablename__ = "failure"
    individual: Mapped[str] = mapped_column(ForeignKey("individual.id"), primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    message: Mapped[str]
    traceback: Mapped[str]
    attempts: Mapped[int]


class Event(Table):
    """The diary of a run. time: UTC, ISO 8601. seconds: of work until then, all sessions together."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[str]
    seconds: Mapped[float]
    name: Mapped[str]
    facts: Mapped[str]
