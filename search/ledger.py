"""The ledger of a run: one SQLite file in which every result is durable before the next step.

The database is the truth; strategies and reports are rebuilt from it. `synchronous=FULL` makes a commit survive a power
cut, and a commit is one transaction, so a killed process leaves either all of a result or nothing of it.
"""

import io
import json
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ForeignKey,
    LargeBinary,
    create_engine,
    event,
    select,
)
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from evaluators.scores import Score, TaskScore
from evaluators.splits import Split
from kinship.errors import LedgerError
from kinship.gram import GramTable
from merging.span import Genome
from search.population import Role

LEDGER_NAME = "ledger.sqlite"
SCHEMA_VERSION = 1


class _Base(DeclarativeBase):
    pass


class _Run(_Base):
    __tablename__ = "run"
    id: Mapped[int] = mapped_column(primary_key=True)
    schema_version: Mapped[int]
    config: Mapped[str]
    digests: Mapped[str]
    gram: Mapped[bytes] = mapped_column(LargeBinary)
    stopped: Mapped[str | None]


class _Individual(_Base):
    __tablename__ = "individual"
    id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(unique=True)
    generation: Mapped[int]
    role: Mapped[str]
    parents: Mapped[str]
    recipe: Mapped[str]
    genome: Mapped[bytes] = mapped_column(LargeBinary)
    identity: Mapped[str]
    kinship: Mapped[float | None]
    error: Mapped[str | None]


class _Score(_Base):
    __tablename__ = "score"
    individual: Mapped[str] = mapped_column(ForeignKey("individual.id"), primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    documents: Mapped[bytes] = mapped_column(LargeBinary)


@dataclass(frozen=True)
class Record:
    """All that is known of one individual. ``kinship`` is its parents'; ``error`` tells why it has no score."""

    id: str
    generation: int
    role: Role
    parents: tuple[str, ...]
    recipe: dict[str, Any]
    genome: Genome
    identity: str
    kinship: float | None = None
    error: str | None = None
    scores: dict[Split, Score] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether the search has its answer: a score or a recorded failure."""
        return "search" in self.scores or self.error is not None

    @property
    def fitness(self) -> float | None:
        """The score that the search selects on; None until there is one, and for failures."""
        return self.scores["search"].value if "search" in self.scores else None


@dataclass(frozen=True)
class RunFacts:
    """What a run was started with: its config, the digests of base and founders by id, their Gram table."""

    config: dict[str, Any]
    digests: dict[str, str]
    table: GramTable


class Ledger:
    """Access to one ledger file. Every method that writes is durable on return."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = create_engine(f"sqlite:///{path}")
        event.listen(self._engine, "connect", _make_durable)
        try:
            _Base.metadata.create_all(self._engine)
            with Session(self._engine) as session:
                run = session.get(_Run, 1)
                version = run.schema_version if run else SCHEMA_VERSION
        except DatabaseError as error:
            raise LedgerError(f"{path} is not a readable ledger: {error.orig}.") from None
        if version != SCHEMA_VERSION:
            raise LedgerError(
                f"{path} has ledger version {version}, this program reads {SCHEMA_VERSION}.",
                hint="Use the version of model-kinship that wrote it.",
            )

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def start(self, facts: RunFacts) -> None:
        """Record what the run starts with."""
        with Session(self._engine) as session, session.begin():
            session.add(
                _Run(
                    id=1,
                    schema_version=SCHEMA_VERSION,
                    config=json.dumps(facts.config),
                    digests=json.dumps(facts.digests),
                    gram=_pack_table(facts.table),
                )
            )

    def facts(self) -> RunFacts | None:
        """What `start` recorded; None for a run that was never started."""
        with Session(self._engine) as session:
            run = session.get(_Run, 1)
            if run is None:
                return None
            return RunFacts(json.loads(run.config), json.loads(run.digests), GramTable.load(io.BytesIO(run.gram)))

    def set_config(self, config: dict[str, Any]) -> None:
        """Replace the recorded config, to extend a run."""
        with Session(self._engine) as session, session.begin():
            run = session.get_one(_Run, 1)
            run.config = json.dumps(config)

    def set_stopped(self, reason: str | None) -> None:
        """Record why the search ended; None reopens it."""
        with Session(self._engine) as session, session.begin():
            session.get_one(_Run, 1).stopped = reason

    def stopped(self) -> str | None:
        """Why the search ended; None while it has not."""
        with Session(self._engine) as session:
            run = session.get(_Run, 1)
            return run.stopped if run else None

    def add(self, records: Sequence[Record]) -> None:
        """Append new individuals, all or none."""
        with Session(self._engine) as session, session.begin():
            start = len(session.scalars(select(_Individual.position)).all())
            for position, record in enumerate(records, start):
                session.add(
                    _Individual(
                        id=record.id,
                        position=position,
                        generation=record.generation,
                        role=record.role,
                        parents=json.dumps(record.parents),
                        recipe=json.dumps(record.recipe),
                        genome=record.genome.to_bytes(),
                        identity=record.identity,
                        kinship=record.kinship,
                        error=record.error,
                    )
                )

    def record_score(self, id: str, split: Split, score: Score) -> None:
        """Acknowledge a score."""
        with Session(self._engine) as session, session.begin():
            session.add(_Score(individual=id, split=split, documents=_pack_score(score)))

    def record_failure(self, id: str, error: str) -> None:
        """Acknowledge that an individual cannot be scored."""
        with Session(self._engine) as session, session.begin():
            session.get_one(_Individual, id).error = error

    def records(self) -> list[Record]:
        """Every individual in the order it was added."""
        with Session(self._engine) as session:
            scores: dict[str, dict[Split, Score]] = {}
            for score in session.scalars(select(_Score)):
                scores.setdefault(score.individual, {})[score.split] = _unpack_score(score.documents)  # type: ignore[index]
            run = session.get(_Run, 1)
            tensors = len(GramTable.load(io.BytesIO(run.gram)).names) if run else 0
            return [
                Record(
                    row.id,
                    row.generation,
                    row.role,  # type: ignore[arg-type]
                    tuple(json.loads(row.parents)),
                    json.loads(row.recipe),
                    Genome.from_bytes(row.genome, tensors),
                    row.identity,
                    row.kinship,
                    row.error,
                    scores.get(row.id, {}),
                )
                for row in session.scalars(select(_Individual).order_by(_Individual.position))
            ]


def _make_durable(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    with suppress(Exception):  # read-only media cannot switch to WAL, and need not
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _pack_table(table: GramTable) -> bytes:
    buffer = io.BytesIO()
    table.save(buffer)
    return buffer.getvalue()


def _pack_score(score: Score) -> bytes:
    content = {task.task: [task.documents, task.values] for task in score.tasks}
    return zlib.compress(json.dumps(content).encode())


def _unpack_score(data: bytes) -> Score:
    content = json.loads(zlib.decompress(data))
    return Score(
        tuple(TaskScore(task, tuple(documents), tuple(values)) for task, (documents, values) in content.items())
    )
