"""The ledger of a run: a database in which every result is durable before the next step."""

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Engine, delete, event, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from evaluators.scores.score import Results
from evaluators.scores.splits import Split
from kinship.errors import LedgerError
from kinship.measures.gram import GramTable
from kinship.sqlite_files import Trouble
from merging.offspring.span import Genome
from search.config import RunConfig, parse_config
from search.ledger import tables
from search.ledger.checksums import note_changes
from search.ledger.database import SAVED, damage, open_database, unreadable
from search.ledger.location import LedgerLocation, holds_run, location_of
from search.ledger.records import CONTROL, RESULTS, Entry, Failed, Record, StoredChild, Summary
from search.ledger.rows import OWN, failure_row, score_row, told


@dataclass(frozen=True)
class RunFacts:
    """What a run was started with.

    config: as recorded, without the workers, who may differ from one session to the next. digests: of base and
    founders by id. table: their Gram. tasks: metric and digest of each by name. conditions: what scores were measured
    with. budget: evaluations that its strategy was told of.
    """

    config: RunConfig
    digests: dict[str, str]
    table: GramTable
    tasks: dict[str, dict[str, str]] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)
    budget: int | None = None


class Ledger:
    """The ledger of one run, in a SQLite file or in a database that may hold several runs. It promises:

    * It is canonical: strategies, exports and reports are rebuilt from it, and what it does not say did not happen.
      Weights are not in it: those of children outside the span are files that can be made again from it.
    * Whatever writes is durable on return, through a power cut, and is one transaction: a killed process leaves all of
      it or nothing. What was recorded of an individual is never changed or removed, but by `delete`.
    * One process writes, which opens it ``exclusive`` and holds the folder's lock; anybody may read meanwhile, of which
      each query sees whole transactions. Whoever opens an older ledger, a reader too, brings its tables up to date.
    * An object belongs to one thread at a time; others open one of their own. A worker never has one.
    * What is read comes in the order in which it was added, and is what was written: a file is compared with its
      checksums when it is opened, and refused where they differ, unless ``damaged`` ones are wanted.

    location: a SQLite file, or a run in a database. engine: of that database, open already, which is not closed with
    this object and may be shared. All methods raise `LedgerError` where the database cannot be read
    or written; those that write raise `sqlalchemy.exc.IntegrityError` for what is there already, or of nobody.
    """

    def __init__(
        self,
        location: Path | LedgerLocation,
        *,
        exclusive: bool = False,
        damaged: bool = False,
        engine: Engine | None = None,
    ) -> None:
        self.location = location if isinstance(location, LedgerLocation) else LedgerLocation.of_file(location)
        self.engine = engine or open_database(self.location, exclusive=exclusive)
        self._is_lent = engine is not None
        self._key: int | None = None
        if not damaged:
            self._require_whole()
        self.clock: Callable[[], float] = lambda: 0.0
        """Seconds of work, all sessions together: what the diary says of results."""

    @classmethod
    def of_run(cls, folder: Path, ledger: str | None = None, *, damaged: bool = False) -> Self:
        """The ledger of the run in ``folder``; raises `LedgerError` where there is none.

        ledger: the URL with its password, where the database wants one and the environment does not give it.
        """
        if not holds_run(folder):
            raise LedgerError(f"{folder} holds no run.", hint="Give the folder that `kinship evolve --out` made.")
        return cls(location_of(folder, ledger), damaged=damaged)

    def close(self) -> None:
        """Close the database, and free the run for others."""
        if not self._is_lent:
            self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The run

    def start(self, facts: RunFacts) -> None:
        """Record what the run is about, once."""
        with self._writing() as session:
            session.add(
                tables.Run(
                    name=self.location.run,
                    config=facts.config.to_record(),
                    digests=facts.digests,
                    tasks=facts.tasks,
                    conditions=facts.conditions,
                    budget=facts.budget,
                    gram=facts.table,
                )
            )

    def facts(self) -> RunFacts | None:
        """What the run was started with; None in a new ledger. Raises `InvalidConfig` for settings not known here."""
        with self._reading() as session:
            run = session.get(tables.Run, self._run(session))
            if run is None:
                return None
            config = parse_config(run.config, f"the run in {self.location}")
            return RunFacts(config, run.digests, run.gram, run.tasks, run.conditions, run.budget)

    def set_config(self, config: RunConfig) -> None:
        """Replace the recorded config, to extend a run."""
        with self._writing() as session:
            session.get_one(tables.Run, self._run(session)).config = config.to_record()

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
        self.write_diary([Entry(_now(), seconds, name, dict(facts))])

    def write_diary(self, entries: Iterable[Entry]) -> None:
        """Write lines that have their time, in order."""
        with self._writing() as session:
            run = self._run(session)
            session.add_all(tables.Event(run=run, **vars(entry)) for entry in entries)

    def diary(self, until: int | None = None) -> list[Entry]:
        """What happened when, in order, ``until`` the line of that number; of individuals only `events` tells."""
        row = tables.Event
        with self._reading() as session:
            query = self._mine(row).where(row.name.not_in(RESULTS)).order_by(row.id)
            found = session.scalars(query if until is None else query.where(row.id <= until))
            return [Entry(row.time, row.seconds, row.name, row.facts) for row in found]

    def events(self, after: int = 0, most: int = 500) -> list[tuple[int, Entry]]:
        """At most so many lines of the diary with their numbers, in order, those of individuals among them.

        Numbers rise within a run, and a line is there as soon as what it tells of: asking for what came ``after`` the
        last number seen misses nothing.
        """
        row = tables.Event
        with self._reading() as session:
            found = session.scalars(self._mine(row).where(row.id > after).order_by(row.id).limit(most))
            return [(row.id, Entry(row.time, row.seconds, row.name, row.facts)) for row in found]

    def last_event(self, names: Sequence[str] | None = None) -> int:
        """The number of the latest line of the diary, or of those of some ``names``; 0 where there is none."""
        query = self._mine(tables.Event, func.max(tables.Event.id))
        with self._reading() as session:
            return session.scalar(query if names is None else query.where(tables.Event.name.in_(names))) or 0

    def ended(self) -> str | None:
        """Why there is no other generation, though held-out scores may be missing; None while the search goes on."""
        marks = [entry for entry in self.diary() if entry.name in {"ended", "extended"}]
        return str(marks[-1].facts["reason"]) if marks and marks[-1].name == "ended" else None

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
            outside = session.scalar(self._mine(tables.Stored, func.count())) or 0
            for number, record in enumerate(records, position):
                own = {column: getattr(record, column) for column in OWN}
                session.add(tables.Individual(run=run, position=number, **own))
            session.flush()
            for record in records:
                for index, parent in enumerate(record.parents):
                    session.add(tables.Parent(run=run, child=record.id, position=index, parent=parent))
            for id, genome in genomes.items():
                content, tensors = zlib.compress(genome.to_bytes(), 1), len(genome.coefficients)
                session.add(tables.Genome(run=run, individual=id, tensors=tensors, coefficients=content))
            for id, failed in (failures or {}).items():
                session.add(failure_row(run, id, failed))
            for number, child in enumerate(stored, outside):
                given = {"digest": child.digest, "row": child.row}
                session.add(tables.Stored(run=run, individual=child.id, position=number, **given))
            self._tell(session, "added", individuals=[record.id for record in records])
            for id, failed in (failures or {}).items():
                self._tell(session, "failed", individual=id, **told(failed))

    def records(self, ids: Collection[str] | None = None) -> list[Record]:
        """Every individual, or those of ``ids``, in the order added; genomes and documents are not read."""
        return self._records(ids, tables.Individual.role != CONTROL)

    def controls(self) -> list[Record]:
        """What was made to compare the best offspring with, in the order added: none of the `records`."""
        return self._records(None, tables.Individual.role == CONTROL)

    def _records(self, ids: Collection[str] | None, wanted: Any) -> list[Record]:
        def some(query: Any, column: Any) -> Any:
            return query if ids is None else query.where(column.in_(ids))

        with self._reading() as session:
            parents: dict[str, list[str]] = {}
            parent = tables.Parent
            lines = some(self._mine(parent, parent.child, parent.parent), parent.child)
            lines = lines.order_by(parent.child, parent.position)
            for child, one in session.execute(lines):
                parents.setdefault(child, []).append(one)
            scores: dict[str, dict[Split, Summary]] = {}
            mark = tables.Score
            query = self._mine(mark, mark.individual, mark.split, mark.value, mark.stderr, mark.complete, mark.facts)
            for id, split, value, stderr, complete, facts in session.execute(some(query, mark.individual)):
                scores.setdefault(id, {})[split] = Summary(value, stderr, complete, facts)
            failure = tables.Failure
            query = some(self._mine(failure, failure.individual, failure.message), failure.individual)
            errors = {id: str(message) for id, message in session.execute(query.order_by(failure.stage))}
            row = tables.Individual
            query = some(self._mine(row, *(getattr(row, column) for column in OWN)), row.id)
            query = query.where(wanted).order_by(row.position)
            return [
                Record(
                    **own, parents=tuple(parents.get(own["id"], ())), error=errors.get(own["id"]),
                    scores=scores.get(own["id"], {}),
                )
                for own in (dict(zip(OWN, each, strict=True)) for each in session.execute(query))
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
                StoredChild(row.individual, row.digest, row.row)
                for row in session.scalars(self._mine(tables.Stored).order_by(tables.Stored.position))
            ]

    # Results

    def record_results(self, id: str, split: Split, results: Results, score: Summary | None = None) -> None:
        """Acknowledge results, by task and document, beside those already there, and the score they complete."""
        with self._writing() as session:
            block = tables.Block
            run = self._run(session)
            earlier = self._mine(block, func.count()).where(block.individual == id, block.split == split)
            count = sum(len(values) for values in results.values())
            position = session.scalar(earlier) or 0
            session.add(block(run=run, individual=id, split=split, position=position, count=count, results=results))
            if score is not None:
                session.add(score_row(run, id, split, score))
                self._tell(session, "scored", individual=id, split=split, **score.facts)

    def results(self, id: str, split: Split) -> dict[str, dict[int, float]]:
        """All results of an individual on a split, by task and document."""
        found: dict[str, dict[int, float]] = {}
        block = tables.Block
        mine = block.individual == id, block.split == split
        query = self._mine(block, block.results).where(*mine).order_by(block.position)
        with self._reading() as session:
            for part in session.scalars(query):
                for task, values in part.items():
                    found.setdefault(task, {}).update(values)
        return found

    def record_scores(self, split: Split, scores: Mapping[str, Summary]) -> None:
        """Acknowledge scores by individual."""
        with self._writing() as session:
            run = self._run(session)
            session.add_all(score_row(run, id, split, score) for id, score in scores.items())
            for id, score in scores.items():
                self._tell(session, "scored", individual=id, split=split, **score.facts)

    def record_failure(self, id: str, failed: Failed) -> None:
        """Acknowledge that an individual cannot be scored."""
        with self._writing() as session:
            session.add(failure_row(self._run(session), id, failed))
            self._tell(session, "failed", individual=id, **told(failed))

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

    def _require_whole(self) -> None:
        try:
            found = damage(self.engine)
        except (*Trouble, DBAPIError) as error:
            self.close()
            raise LedgerError(f"{self.location} cannot be read: {error}.", hint=SAVED) from error
        if found:
            self.close()
            raise LedgerError(f"{self.location} is damaged: {'; '.join(found[:3])}.", hint=SAVED)

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        try:
            with Session(self.engine) as session:
                event.listen(session, "after_flush", note_changes)
                yield session
        except IntegrityError:
            raise
        except (*Trouble, DBAPIError) as error:
            raise unreadable(self.location, error) from error

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self._reading() as session, session.begin():
            yield session

    def _run(self, session: Session) -> int:
        """The key of the run; 0, which no run has, while it is not there."""
        if self._key is None:
            self._key = session.scalar(select(tables.Run.id).where(tables.Run.name == self.location.run))
        return self._key or 0

    def _tell(self, session: Session, name: str, **facts: Any) -> None:
        """Write a line into the diary, in the transaction that records what it tells of."""
        session.add(tables.Event(run=self._run(session), time=_now(), seconds=self.clock(), name=name, facts=facts))

    def _mine(self, table: Any, *columns: Any) -> Any:
        """What to select of a table, rows of this run alone."""
        own = select(tables.Run.id).where(tables.Run.name == self.location.run).scalar_subquery()
        return select(*(columns or (table,))).select_from(table).where(table.run == own)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
