"""The ledger of a run: one SQLite file in which every result is durable before the next step.

The database is the truth; strategies and reports are rebuilt from it. `synchronous=FULL` makes a commit survive a power
cut, and a commit is one transaction, so a killed process leaves either all of a result or nothing of it.
"""

import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from sqlalchemy import create_engine, event, func, inspect, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from evaluators.scores import Results
from evaluators.splits import Split
from kinship.errors import LedgerError
from kinship.gram import GramTable
from merging.span import Genome
from search import tables
from search.records import Failed, Record, Summary

LEDGER_NAME = "ledger.sqlite"


@dataclass(frozen=True)
class RunFacts:
    """What a run was started with.

    config: all but what may differ from one session to the next. digests: of base and founders by id. table: their
    Gram. tasks: metric and digest of each by name. conditions: what scores were measured with. budget: evaluations
    that its strategy was told of.
    """

    config: dict[str, Any]
    digests: dict[str, str]
    table: GramTable
    tasks: dict[str, dict[str, str]] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)
    budget: int | None = None


@dataclass(frozen=True)
class StoredChild:
    """A child outside the span. row: extends the Gram table, ``sums`` and ``products``. digest: of its weights."""

    id: str
    digest: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One line of the diary of a run."""

    time: str
    seconds: float
    name: str
    facts: dict[str, Any]


class Ledger:
    """Access to one ledger file. Every method that writes is durable on return, and writes all or nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = create_engine(f"sqlite:///{path}")
        event.listen(self._engine, "connect", _make_durable)
        try:
            version = self._version()
            if version == tables.VERSION:
                tables.Table.metadata.create_all(self._engine)
        except DatabaseError as error:
            raise LedgerError(f"{path} is not a readable ledger: {error.orig}.") from None
        if version != tables.VERSION:
            raise LedgerError(
                f"{path} has ledger version {version}, this program reads {tables.VERSION}.",
                hint="Use the version of model-kinship that wrote it.",
            )

    @classmethod
    def of_run(cls, folder: Path) -> Self:
        """The ledger of the run in ``folder``; raises `LedgerError` where there is none."""
        if not (folder / LEDGER_NAME).is_file():
            raise LedgerError(f"{folder} holds no run.", hint="Give the folder that `kinship evolve --out` made.")
        return cls(folder / LEDGER_NAME)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The run

    def start(self, facts: RunFacts) -> None:
        """Record what the run is about; a ledger holds one run."""
        table = io.BytesIO()
        facts.table.save(table)
        with self._writing() as session:
            session.add(
                tables.Run(
                    id=1,
                    schema_version=tables.VERSION,
                    config=json.dumps(facts.config),
                    digests=json.dumps(facts.digests),
                    tasks=json.dumps(facts.tasks),
                    conditions=json.dumps(facts.conditions),
                    budget=facts.budget,
                    gram=table.getvalue(),
                )
            )

    def facts(self) -> RunFacts | None:
        """What the run was started with; None in a new ledger."""
        with Session(self._engine) as session:
            run = session.get(tables.Run, 1)
            if run is None:
                return None
            return RunFacts(
                json.loads(run.config),
                json.loads(run.digests),
                GramTable.load(io.BytesIO(run.gram)),
                json.loads(run.tasks),
                json.loads(run.conditions),
                run.budget,
            )

    def set_config(self, config: dict[str, Any]) -> None:
        """Replace the recorded config, to extend a run."""
        with self._writing() as session:
            session.get_one(tables.Run, 1).config = json.dumps(config)

    def set_stopped(self, reason: str | None) -> None:
        """Record why the search ended; None reopens it."""
        with self._writing() as session:
            session.get_one(tables.Run, 1).stopped = reason

    def stopped(self) -> str | None:
        """Why the search ended; None while it has not."""
        with Session(self._engine) as session:
            run = session.get(tables.Run, 1)
            return run.stopped if run else None

    def note(self, name: str, facts: Mapping[str, Any], seconds: float) -> None:
        """Write a line into the diary."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        with self._writing() as session:
            session.add(tables.Event(time=time, seconds=seconds, name=name, facts=json.dumps(facts)))

    def diary(self) -> list[Entry]:
        """What happened when, in order."""
        with Session(self._engine) as session:
            return [
                Entry(row.time, row.seconds, row.name, json.loads(row.facts))
                for row in session.scalars(select(tables.Event).order_by(tables.Event.id))
            ]

    def seconds(self) -> float:
        """How long the run had worked when the last line of the diary was written."""
        with Session(self._engine) as session:
            return session.scalar(select(func.max(tables.Event.seconds))) or 0.0

    # Individuals

    def add(
        self,
        records: Sequence[Record],
        genomes: Mapping[str, Genome],
        failures: Mapping[str, Failed] | None = None,
        stored: Sequence[StoredChild] = (),
    ) -> None:
        """Append new individuals with the genomes of those that have one, and the failures of those that have none."""
        with self._writing() as session:
            position = session.scalar(select(func.count()).select_from(tables.Individual)) or 0
            place = session.scalar(select(func.count()).select_from(tables.Stored)) or 0
            for number, record in enumerate(records, position):
                session.add(
                    tables.Individual(
                        id=record.id,
                        position=number,
                        generation=record.generation,
                        batch=record.batch,
                        role=record.role,
                        recipe=json.dumps(record.recipe),
                        identity=record.identity,
                        kinship=record.kinship,
                        twin=record.twin,
                    )
                )
            session.flush()
            for record in records:
                for index, parent in enumerate(record.parents):
                    session.add(tables.Parent(child=record.id, place=index, parent=parent))
            for id, genome in genomes.items():
                content, tensors = zlib.compress(genome.to_bytes(), 1), len(genome.coefficients)
                session.add(tables.Genome(individual=id, tensors=tensors, coefficients=content))
            for id, failed in (failures or {}).items():
                session.add(tables.Failure(individual=id, **vars(failed)))
            for number, child in enumerate(stored, place):
                row = _pack_arrays(child.row)
                session.add(tables.Stored(individual=child.id, place=number, digest=child.digest, row=row))

    def records(self) -> list[Record]:
        """Every individual in the order it was added; genomes and documents are not read."""
        with Session(self._engine) as session:
            parents: dict[str, list[str]] = {}
            parent = tables.Parent
            for child, one in session.execute(select(parent.child, parent.parent).order_by(parent.child, parent.place)):
                parents.setdefault(child, []).append(one)
            scores: dict[str, dict[Split, Summary]] = {}
            mark = tables.Score
            query = select(mark.individual, mark.split, mark.value, mark.stderr, mark.complete, mark.facts)
            for id, split, value, stderr, complete, facts in session.execute(query.order_by(mark.individual)):
                scores.setdefault(id, {})[split] = Summary(value, stderr, complete, json.loads(facts))  # type: ignore[index]
            failure = tables.Failure
            failures = session.execute(select(failure.individual, failure.message).order_by(failure.stage))
            errors = {id: str(message) for id, message in failures}
            row = tables.Individual
            columns = (row.id, row.generation, row.role, row.recipe, row.identity, row.batch, row.kinship, row.twin)
            return [
                Record(
                    id, generation, role, tuple(parents.get(id, ())), json.loads(recipe), identity, batch, kinship,  # type: ignore[arg-type]
                    twin, errors.get(id), scores.get(id, {}),
                )
                for id, generation, role, recipe, identity, batch, kinship, twin in session.execute(
                    select(*columns).order_by(row.position)
                )
            ]  # fmt: skip

    def genomes(self, ids: Iterable[str]) -> dict[str, Genome]:
        """The genomes of these individuals, of those that have one, in this order."""
        wanted = list(ids)
        with Session(self._engine) as session:
            found: dict[str, Genome] = {}
            for start in range(0, len(wanted), 500):
                some = tables.Genome.individual.in_(wanted[start : start + 500])
                for row in session.scalars(select(tables.Genome).where(some)):
                    found[row.individual] = Genome.from_bytes(zlib.decompress(row.coefficients), row.tensors)
        return {id: found[id] for id in wanted if id in found}

    def table(self) -> GramTable:
        """The Gram table of the founders and of the children outside their span."""
        facts = self.facts()
        assert facts is not None
        table = facts.table
        for child in self.stored():
            table = table.extended(child.id, child.row["sums"], child.row["products"])
        return table

    def stored(self) -> list[StoredChild]:
        """Every child outside the span, in the order they came."""
        with Session(self._engine) as session:
            return [
                StoredChild(row.individual, row.digest, _unpack_arrays(row.row))
                for row in session.scalars(select(tables.Stored).order_by(tables.Stored.place))
            ]

    # Results

    def record_results(self, id: str, split: Split, results: Results, score: Summary | None = None) -> None:
        """Acknowledge results, by task and document, beside those already there, and the score they complete."""
        with self._writing() as session:
            block = tables.Block
            mine = select(func.count()).where(block.individual == id, block.split == split)
            count = sum(len(values) for values in results.values())
            place = session.scalar(mine) or 0
            session.add(block(individual=id, split=split, place=place, count=count, results=_pack(results)))
            if score is not None:
                session.add(_row(id, split, score))

    def results(self, id: str, split: Split) -> dict[str, dict[int, float]]:
        """All results of an individual on a split, by task and document."""
        found: dict[str, dict[int, float]] = {}
        block = tables.Block
        query = select(block.results).where(block.individual == id, block.split == split).order_by(block.place)
        with Session(self._engine) as session:
            for data in session.scalars(query):
                for task, values in _unpack(data).items():
                    found.setdefault(task, {}).update(values)
        return found

    def record_scores(self, split: Split, scores: Mapping[str, Summary]) -> None:
        """Acknowledge scores by individual."""
        with self._writing() as session:
            session.add_all(_row(id, split, score) for id, score in scores.items())

    def record_failure(self, id: str, failed: Failed) -> None:
        """Acknowledge that an individual cannot be scored."""
        with self._writing() as session:
            session.add(tables.Failure(individual=id, **vars(failed)))

    def failures(self) -> dict[str, list[Failed]]:
        """Every failure by individual, with its traceback."""
        found: dict[str, list[Failed]] = {}
        with Session(self._engine) as session:
            for row in session.scalars(select(tables.Failure).order_by(tables.Failure.individual)):
                failed = Failed(row.stage, row.kind, row.message, row.traceback, row.attempts)  # type: ignore[arg-type]
                found.setdefault(row.individual, []).append(failed)
        return found

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with Session(self._engine) as session, session.begin():
            yield session

    def _version(self) -> int:
        if not inspect(self._engine).has_table(tables.Run.__tablename__):
            return tables.VERSION
        with Session(self._engine) as session:
            return session.scalar(select(tables.Run.schema_version)) or tables.VERSION


def _make_durable(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    with suppress(Exception):  # read-only media cannot switch to WAL, and need not
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _row(id: str, split: Split, score: Summary) -> tables.Score:
    columns = {"value": score.value, "stderr": score.stderr, "complete": score.complete}
    return tables.Score(individual=id, split=split, facts=json.dumps(score.facts), **columns)


def _pack(results: Results) -> bytes:
    content = {task: [sorted(values), [values[key] for key in sorted(values)]] for task, values in results.items()}
    return zlib.compress(json.dumps(content).encode())


def _unpack(data: bytes) -> dict[str, dict[int, float]]:
    content = json.loads(zlib.decompress(data))
    return {task: dict(zip(documents, values, strict=True)) for task, (documents, values) in content.items()}


def _pack_arrays(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _unpack_arrays(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)
