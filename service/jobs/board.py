"""The board of jobs: what is asked for, in which order, what came of it. Only the supervisor changes what runs."""

import json
import platform
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from kinship.errors import DatabaseUnavailable
from search.ledger.location import LedgerLocation, identity
from service.answers.jobs import Job, JobKind, JobLog, JobProgress, Jobs
from service.jobs.errors import Conflict, NotFound, QueueFull
from service.jobs.folder import ARGUMENTS, LOG, OUTPUT, PROGRESS, RESULT
from service.jobs.table import JobRow, now, open_tables

FILE, FOLDER = "service.sqlite", "jobs"
WAITING = ("queued", "lost")
WORKING = ("running", "pausing", "cancelling")
PAUSED: Sequence[JobKind] = ("evolve", "compare")  # what goes on where it was stopped
OVER = ("paused", "cancelled", "done", "failed")
MOST_LOG = 1 << 18  # bytes of a log in one answer
LATEST = 500  # jobs of one page, beside those that wait


@dataclass
class Board:
    """The jobs of one workspace. Safe to be used by several threads; any number of processes may look."""

    folder: Path
    database: str | None = None
    most_queued: int = 100
    changed: threading.Event = field(default_factory=threading.Event)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        """Raises `LedgerError` where the database cannot be used."""
        self.location = (
            LedgerLocation.parse(self.database, "jobs") if self.database else LedgerLocation.of_file(self.folder / FILE)
        )
        self.owner = f"{platform.node()}:{self.folder.resolve()}"
        self.engine: Engine = open_tables(self.location)
        self._opened = self._identity()

    def close(self) -> None:
        """Close the database."""
        self.engine.dispose()

    def session(self) -> Session:
        """A session; nobody of this process writes at the same time in one that `alone` is held around.

        Raises `DatabaseUnavailable` where the file is another one by now: what is written to one that was removed, or
        moved away with its folder, is lost with the process.
        """
        if self._identity() != self._opened:
            raise DatabaseUnavailable(
                f"{self.location} was moved or removed.", hint="Put it back, or start the server again."
            )
        return Session(self.engine)

    def _identity(self) -> object:
        return identity(self.location.file) if self.location.file else None

    @property
    def alone(self) -> threading.RLock:
        """To be held by whoever decides by what it has read."""
        return self._lock

    def place(self, id: int) -> Path:
        """The folder of a job."""
        return self.folder / FOLDER / str(id)

    # Asking

    def submit(
        self,
        kind: JobKind,
        title: str,
        arguments: Sequence[str],
        *,
        files: Mapping[str, str] | None = None,
        device: str = "cpu",
        run: str | None = None,
        key: str | None = None,
        digest: str | None = None,
    ) -> Job:
        """Put a job at the end of the queue.

        files: texts by name, put into its folder, which is ``{job}`` in ``arguments``. ``key`` makes it happen once:
        asked for again with the same ``digest``, the job is the one there is. Raises
        `QueueFull`, and `Conflict` for a key of another request, or a run that a job works on.
        """
        with self._lock, self.session() as session:
            if key is not None and (known := self._known(session, key, digest)) is not None:
                return self._told(known)
            self._require_room(session, run)
            last = session.scalar(select(func.max(JobRow.position)).filter_by(owner=self.owner)) or 0.0
            row = JobRow(
                owner=self.owner, kind=kind, title=title, arguments=list(arguments), device=device, run=run,
                position=last + 1.0, key=key, digest=digest, created=now(),
            )  # fmt: skip
            session.add(row)
            session.flush()
            folder = self.place(row.id)
            shutil.rmtree(folder, ignore_errors=True)  # of one that was never asked for in the end
            folder.mkdir(parents=True)
            for name, text in {**(files or {}), ARGUMENTS: json.dumps(row.arguments)}.items():
                (folder / name).write_text(text, encoding="utf-8")
            session.commit()
            told = self._told(row)
        self.changed.set()
        return told

    def known(self, key: str | None, digest: str | None) -> Job | None:
        """The job that was asked for by that key. Raises `Conflict` where it was another request."""
        with self.session() as session:
            row = self._known(session, key, digest) if key is not None else None
            return None if row is None else self._told(row)

    def _known(self, session: Session, key: str, digest: str | None) -> JobRow | None:
        row = session.scalar(select(JobRow).filter_by(owner=self.owner, key=key))
        if row is not None and row.digest != digest:
            raise Conflict(
                f"The Idempotency-Key {key!r} was used for another request, job {row.id}.", hint="Use a new key."
            )
        return row

    def _require_room(self, session: Session, run: str | None) -> None:
        waiting = select(func.count()).select_from(JobRow).filter_by(owner=self.owner).where(JobRow.state.in_(WAITING))
        if (session.scalar(waiting) or 0) >= self.most_queued:
            raise QueueFull(f"{self.most_queued} jobs wait already.", hint="Wait for some, or cancel some.")
        if run is not None:
            busy = select(JobRow.id).filter_by(owner=self.owner, run=run).where(JobRow.state.in_(WAITING + WORKING))
            if (other := session.scalar(busy)) is not None:
                raise Conflict(
                    f"Job {other} works in the folder {run}, or is about to.", hint="Wait for it, or cancel it."
                )

    def cancel(self, id: int) -> Job:
        """End a job: one that waits at once, one that runs as its process does. Raises `NotFound`, `Conflict`."""
        return self._ask(id, "cancel", "cancelling", "cancelled")

    def pause(self, id: int) -> Job:
        """Have a search, or a comparison, keep what it has and stop. Raises `NotFound`, `Conflict`."""
        if self.get(id).kind not in PAUSED:
            raise Conflict(f"Job {id} is no search, and no comparison: it cannot be paused.", hint="Cancel it.")
        return self._ask(id, "pause", "pausing", "paused")

    def _ask(self, id: int, intent: str, while_working: str, while_waiting: str) -> Job:
        with self._lock, self.session() as session:
            row = self._row(session, id)
            if row.owner != self.owner:
                raise Conflict(f"Job {id} belongs to {row.owner}.", hint="Ask the server there.")
            if row.state in OVER:
                raise Conflict(f"Job {id} is {row.state} already.", hint="Nothing is left to be done.")
            if row.intent == "cancel":
                intent, while_working = "cancel", "cancelling"
            row.intent = intent
            row.state = while_waiting if row.state in WAITING else while_working
            row.ended = now() if row.state in OVER else None
            session.commit()
            told = self._told(row)
        self.changed.set()
        return told

    def move(self, id: int, before: int | None) -> Jobs:
        """Put a waiting job before another one, or last. Raises `NotFound`, `Conflict` for one that does not wait."""
        with self._lock, self.session() as session:
            row = self._row(session, id)
            waiting = [other for other in self._waiting(session) if other.owner == self.owner and other.id != id]
            if row.state not in WAITING or row.owner != self.owner:
                raise Conflict(f"Job {id} is {row.state}: it has no place in the queue.")
            place = next((place for place, other in enumerate(waiting) if other.id == before), len(waiting))
            if before is not None and place == len(waiting):
                raise Conflict(f"Job {before} does not wait.", hint="Name one that does.")
            waiting.insert(place, row)
            for position, other in enumerate(waiting, 1):
                other.position = float(position)
            session.commit()
        self.changed.set()
        return self.all()

    def remove(self, id: int) -> None:
        """Forget a job that is over, with its files. Raises `NotFound`, `Conflict`."""
        with self._lock, self.session() as session:
            row = self._row(session, id)
            if row.state not in OVER or row.owner != self.owner:
                raise Conflict(f"Job {id} is {row.state}.", hint="Cancel it first.")
            session.delete(row)
            session.commit()
        shutil.rmtree(self.place(id), ignore_errors=True)

    def forget_run(self, run: str) -> None:
        """Forget every job that worked on a run. Raises `Conflict` where one still does."""
        with self._lock:
            with self.session() as session:
                ids = session.scalars(select(JobRow.id).filter_by(owner=self.owner, run=run)).all()
            for id in ids:
                self.remove(id)

    # Looking

    def all(self, after: int | None = None, most: int = LATEST, **only: str | None) -> Jobs:
        """Those that wait, and the latest of the others; ``after``: others, before the job of that number.

        only: what columns must hold, such as ``state``, ``kind`` or ``run``.
        """
        wanted = {column: value for column, value in only.items() if value is not None}
        with self.session() as session:
            waiting = self._waiting(session, wanted) if after is None else []
            rest = select(JobRow).filter_by(**wanted).where(JobRow.state.not_in(WAITING)).order_by(JobRow.id.desc())
            if after is not None:
                rest = rest.where(JobRow.id < after)
            others = list(session.scalars(rest.limit(most + 1)))
            page = others[:most]
            more = page[-1].id if len(others) > most else None
            return Jobs(jobs=[self._told(row) for row in [*waiting, *page]], next=more)

    def get(self, id: int) -> Job:
        """One job. Raises `NotFound`."""
        with self.session() as session:
            return self._told(self._row(session, id))

    def latest(self, kind: JobKind = "evolve", *, elsewhere: bool = False) -> dict[str, Job]:
        """The latest job of that kind of each folder that has one; ``elsewhere``: of other servers."""
        whose = JobRow.owner != self.owner if elsewhere else JobRow.owner == self.owner
        with self.session() as session:
            newest = (
                select(func.max(JobRow.id))
                .where(whose, JobRow.kind == kind, JobRow.run.is_not(None))
                .group_by(JobRow.run)
            )
            rows = session.scalars(select(JobRow).where(JobRow.id.in_(newest)).order_by(JobRow.id))
            return {row.run: self._told(row) for row in rows if row.run is not None}

    def log(self, id: int, after: int = 0) -> JobLog:
        """The log from the byte ``after`` on, a part at a time. Raises `NotFound`."""
        over = self.get(id).state in OVER
        try:
            with open(self.place(id) / LOG, "rb") as file:
                file.seek(after)
                part = file.read(MOST_LOG)
        except OSError:
            part = b""
        whole = len(part) < MOST_LOG
        return JobLog(text=part.decode("utf-8", "replace"), next=after + len(part), over=over and whole)

    def result(self, id: int) -> str:
        """The answer of a job that is done, as JSON. Raises `NotFound`, and `Conflict` for one that is not."""
        job = self.get(id)
        if job.state != "done":
            raise Conflict(f"Job {id} is {job.state}: it has no result.", hint="Wait until it is done.")
        try:
            found = (self.place(id) / RESULT / OUTPUT).read_text(encoding="utf-8")
        except OSError:
            found = ""
        if not found:
            raise NotFound(f"Job {id} has no answer here.", hint="A search tells what it finds under its run.")
        return found

    def _waiting(self, session: Session, only: Mapping[str, str] | None = None) -> list[JobRow]:
        waiting = select(JobRow).filter_by(**(only or {})).where(JobRow.state.in_(WAITING))
        waiting = waiting.order_by(JobRow.position, JobRow.id)
        return list(session.scalars(waiting))

    def _row(self, session: Session, id: int) -> JobRow:
        row = session.get(JobRow, id) if 0 < id < 2**31 else None
        if row is None:
            raise NotFound(f"There is no job {id}.", hint="GET /api/v1/jobs lists them.")
        return row

    def _told(self, row: JobRow) -> Job:
        columns = ("id", "kind", "title", "state", "run", "arguments", "device", "slot", "starts", "created", "started")
        return Job.model_validate(
            {column: getattr(row, column) for column in (*columns, "ended", "error", "hint")}
            | {"host": row.owner.partition(":")[0], "progress": self._progress(row)}
        )

    def _progress(self, row: JobRow) -> JobProgress | None:
        if row.state not in WORKING or row.owner != self.owner:
            return None
        try:
            return JobProgress.model_validate_json((self.place(row.id) / PROGRESS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
