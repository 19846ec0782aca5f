"""The ledger of a run: a database in which every result is durable before the next step.

The database is the truth; strategies and reports are rebuilt from it. A commit survives a power cut
(`search.ledger.database`) and is one transaction, so a killed process leaves either all of a result or nothing of it.
"""

import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from sqlalchemy import delete, func, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from evaluators.scores.score import Results
from evaluators.scores.splits import Split
from kinship.errors import LedgerError
from kinship.measures.gram import GramTable
from merging.offspring.span import Genome
from search.ledger import tables
from search.ledger.database import LEDGER_NAME, Place, holds_run, open_database, place_of, unreadable
from search.ledger.records import Failed, Record, Summary

__all__ = ["LEDGER_NAME", "Entry", "Ledger", "RunFacts", "StoredChild"]


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
    """Access to the ledger of one run. Every method that writes is durable on return, and writes all or nothing.

    place: the path of a SQLite file, or a run in a database. exclusive: for whoever runs the search, see
    `search.ledger.database.open_database`. All methods raise `LedgerError` where the database fails them.
    """

    def __init__(self, place: Path | Place, *, exclusive: bool = False) -> None:
        self.place = place if isinstance(place, Place) else Place.of_file(place)
        self.engine = open_database(self.place, exclusive=exclusive)
        self._key: int | None = None

    @classmethod
    def of_run(cls, folder: Path, ledger: str | None = None) -> Self:
        """The ledger of the run in ``folder``; raises `LedgerError` where there is none.

        ledger: the URL with its password, where the database wants one and the environment does not give it.
        """
        if not holds_run(folder):
            raise LedgerError(f"{folder} holds no run.", hint="Give the folder that `kinship evolve --out` made.")
        return cls(place_of(folder, ledger))

    def close(self) -> None:
        """Close the database, and free the run for others."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The run

    def start(self, facts: RunFacts) -> None:
        """Record what the run is about, once."""
        table = io.BytesIO()
        facts.table.save(table)
        with self._writing() as session:
            session.add(
                tables.Run(
                    name=self.place.run,
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
        with self._reading() as session:
            run = session.get(tables.Run, self._run(session))
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
            session.get_one(tables.Run, self._run(session)).config = json.dumps(config)

    def set_stopped(self, reason: str | None) -> None:
        """Record why the search ended; None reopens it."""
        with self._writing() as session:
            session.get_one(tables.Run, self._run(session)).stopped = reason

    def stopped(self) -> str | None:
        """Why the search ended; None while it has not."""
        with self._reading() as session:
            run = session.get(tables.Run, self._run(session))
            return run.stopped if run else None

    def note(self, name: str, facts: Mapping[str, Any], seconds: float) -> None:
        """Write a line into the diary."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        self.write_diary([Entry(time, seconds, name, dict(facts))])

    def write_diary(self, entries: Iterable[Entry]) -> None:
        """Write lines that have their time, in order."""
        with self._writing() as session:
            run = self._run(session)
            session.add_all(
                tables.Event(run=run, **vars(entry) | {"facts": json.dumps(entry.facts)}) for entry in entries
            )

    def diary(self) -> list[Entry]:
        """What happened when, in order."""
        with self._reading() as session:
            return [
                Entry(row.time, row.seconds, row.name, json.loads(row.facts))
                for row in session.scalars(self._mine(tables.Event).order_by(tables.Event.id))
            ]

    def seconds(self) -> float:
        """How long the run had worked when the last line of the diary was written."""
        with self._reading() as session:
            return session.scalar(self._mine(tables.Event, func.max(tables.Event.seconds))) or 0.0

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
            run = self._run(session)
            position = session.scalar(self._mine(tables.Individual, func.count())) or 0
            place = session.scalar(self._mine(tables.Stored, func.count())) or 0
            for number, record in enumerate(records, position):
                session.add(
                    tables.Individual(
                        run=run,
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
                    session.add(tables.Parent(run=run, child=record.id, place=index, parent=parent))
            for id, genome in genomes.items():
                content, tensors = zlib.compress(genome.to_bytes(), 1), len(genome.coefficients)
                session.add(tables.Genome(run=run, individual=id, tensors=tensors, coefficients=content))
            for id, failed in (failures or {}).items():
                session.add(_failure(run, id, failed))
            for number, child in enumerate(stored, place):
                row = _pack_arrays(child.row)
                session.add(tables.Stored(run=run, individual=child.id, place=number, digest=child.digest, row=row))

    def records(self) -> list[Record]:
        """Every individual in the order it was added; genomes and documents are not read."""
        with self._reading() as session:
            parents: dict[str, list[str]] = {}
            parent = tables.Parent
            lines = self._mine(parent, parent.child, parent.parent).order_by(parent.child, parent.place)
            for child, one in session.execute(lines):
                parents.setdefault(child, []).append(one)
            scores: dict[str, dict[Split, Summary]] = {}
            mark = tables.Score
            query = self._mine(mark, mark.individual, mark.split, mark.value, mark.stderr, mark.complete, mark.facts)
            for id, split, value, stderr, complete, facts in session.execute(query):
                scores.setdefault(id, {})[split] = Summary(value, stderr, complete, json.loads(facts))
            failure = tables.Failure
            failures = session.execute(self._mine(failure, failure.individual, failure.message).order_by(failure.stage))
            errors = {id: str(message) for id, message in failures}
            row = tables.Individual
            columns = (row.id, row.generation, row.role, row.recipe, row.identity, row.batch, row.kinship, row.twin)
            return [
                Record(
                    id, generation, role, tuple(parents.get(id, ())), json.loads(recipe), identity, batch, kinship,
                    twin, errors.get(id), scores.get(id, {}),
                )
                for id, generation, role, recipe, identity, batch, kinship, twin in session.execute(
                    self._mine(row, *columns).order_by(row.position)
                )
            ]  # fmt: skip

    def genomes(self, ids: Iterable[str]) -> dict[str, Genome]:
        """The genomes of these individuals, of those that have one, in this order."""
        wanted = list(ids)
        with self._reading() as session:
            found: dict[str, Genome] = {}
            for start in range(0, len(wanted), 500):
                some = tables.Genome.individual.in_(wanted[start : start + 500])
                for row in session.scalars(self._mine(tables.Genome).where(some)):
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
        with self._reading() as session:
            return [
                StoredChild(row.individual, row.digest, _unpack_arrays(row.row))
                for row in session.scalars(self._mine(tables.Stored).order_by(tables.Stored.place))
            ]

    # Results

    def record_results(self, id: str, split: Split, results: Results, score: Summary | None = None) -> None:
        """Acknowledge results, by task and document, beside those already there, and the score they complete."""
        with self._writing() as session:
            block = tables.Block
            run = self._run(session)
            earlier = self._mine(block, func.count()).where(block.individual == id, block.split == split)
            count = sum(len(values) for values in results.values())
            place = session.scalar(earlier) or 0
            session.add(block(run=run, individual=id, split=split, place=place, count=count, results=_pack(results)))
            if score is not None:
                session.add(_row(run, id, split, score))

    def results(self, id: str, split: Split) -> dict[str, dict[int, float]]:
        """All results of an individual on a split, by task and document."""
        found: dict[str, dict[int, float]] = {}
        block = tables.Block
        mine = block.individual == id, block.split == split
        query = self._mine(block, block.results).where(*mine).order_by(block.place)
        with self._reading() as session:
            for data in session.scalars(query):
                for task, values in _unpack(data).items():
                    found.setdefault(task, {}).update(values)
        return found

    def record_scores(self, split: Split, scores: Mapping[str, Summary]) -> None:
        """Acknowledge scores by individual."""
        with self._writing() as session:
            run = self._run(session)
            session.add_all(_row(run, id, split, score) for id, score in scores.items())

    def record_failure(self, id: str, failed: Failed) -> None:
        """Acknowledge that an individual cannot be scored."""
        with self._writing() as session:
            session.add(_failure(self._run(session), id, failed))

    def failures(self) -> dict[str, list[Failed]]:
        """Every failure by individual, in the order they were added, with its traceback."""
        found: dict[str, list[Failed]] = {}
        person = tables.Individual
        with self._reading() as session:
            order = self._mine(person, person.id, person.position).subquery()
            query = self._mine(tables.Failure).join(order, order.c.id == tables.Failure.individual)
            for row in session.scalars(query.order_by(order.c.position, tables.Failure.stage)):
                failed = Failed(row.stage, row.kind, row.message, row.traceback, row.attempts)
                found.setdefault(row.individual, []).append(failed)
        return found

    def delete(self) -> None:
        """Remove the run, and all there is of it, from the database."""
        with self._writing() as session:
            run = self._run(session)
            for table in reversed(tables.Table.metadata.sorted_tables):
                session.execute(delete(table).where((table.c.id if table.name == "run" else table.c.run) == run))
        self._key = None

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        try:
            with Session(self.engine) as session:
                yield session
        except (InterfaceError, OperationalError) as error:
            raise unreadable(self.place, error) from error

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self._reading() as session, session.begin():
            yield session

    def _run(self, session: Session) -> int:
        """The key of the run; 0, which no run has, while it is not there."""
        if self._key is None:
            self._key = session.scalar(select(tables.Run.id).where(tables.Run.name == self.place.run))
        return self._key or 0

    def _mine(self, table: Any, *columns: Any) -> Any:
        """What to select of a table, rows of this run alone."""
        own = select(tables.Run.id).where(tables.Run.name == self.place.run).scalar_subquery()
        return select(*(columns or (table,))).select_from(table).where(table.run == own)


def _failure(run: int, id: str, failed: Failed) -> tables.Failure:
    columns = vars(failed) | {name: getattr(failed, name).replace("\0", "\ufffd") for name in ("message", "traceback")}
    return tables.Failure(run=run, individual=id, **columns)  # Postgres keeps no NUL in a text


def _row(run: int, id: str, split: Split, score: Summary) -> tables.Score:
    columns = {"value": score.value, "stderr": score.stderr, "complete": score.complete}
    return tables.Score(run=run, individual=id, split=split, facts=json.dumps(score.facts), **columns)


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


def ending(diary: Sequence[Entry]) -> Mapping[str, Any] | None:
    """What is on record of the end of the search: its ``reason``, and whom the strategy ``recommended``, if anybody.

    None while it goes on, and when it was extended since.
    """
    marks = [entry for entry in diary if entry.name in {"ended", "extended"}]
    return marks[-1].facts if marks and marks[-1].name == "ended" else None
