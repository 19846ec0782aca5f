"""What the runs of a workspace are at the moment: states, summaries, individuals; read once for everybody who asks."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kinship.errors import KinshipError
from search.history.export import describe
from search.ledger.ledger import Ledger
from search.ledger.records import Record
from service.answers.export import Individual
from service.answers.jobs import Job
from service.answers.runs import RunSummary, summary_of
from service.answers.served import RunState, ServedRun
from service.http.workspace import RunPlace

KEPT = 64  # runs whose records stay in memory


@dataclass(frozen=True)
class RunView:
    """A run as its ledger had it at one moment; ``error`` where that could not be read."""

    records: Sequence[Record] = ()
    summary: RunSummary | None = None
    evaluations: int | None = None
    diary: Sequence[str] = ()
    error: str | None = None

    def individual(self, id: str) -> Individual | None:
        """One of them, as the export has it."""
        by_id = {record.id: record for record in self.records}
        return Individual.model_validate(describe(by_id[id], by_id)) if id in by_id else None

    def individuals(self, records: Sequence[Record]) -> list[Individual]:
        """These of them, as the export has them."""
        by_id = {record.id: record for record in self.records}
        return [Individual.model_validate(describe(record, by_id)) for record in records]


@dataclass
class Views:
    """The latest view of each run, read again when its ledger changed. Safe to be used by several threads.

    Whether a ledger is as it was written is checked the first time only: that reads all of it.
    """

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _views: "OrderedDict[str, tuple[Any, RunView]]" = field(default_factory=OrderedDict)
    _reading: dict[str, threading.Lock] = field(default_factory=dict)
    _whole: set[str] = field(default_factory=set)

    def is_whole(self, id: str) -> bool:
        """Whether the ledger of a run was found as it was written."""
        return id in self._whole

    def of(self, place: RunPlace) -> RunView:
        """The view of a run. Cost, where its ledger changed: reading its records, 0.1 s for a thousand."""
        with self._lock:
            reading = self._reading.setdefault(place.id, threading.Lock())
        with reading:
            state = place.state
            known = self._views.get(place.id)
            if known is not None and known[0] == state:
                return known[1]
            view = _read(place, checked=place.id in self._whole)
            with self._lock:
                (self._whole.discard if view.error else self._whole.add)(place.id)
                self._views[place.id] = (state, view)
                self._views.move_to_end(place.id)
                while len(self._views) > KEPT:
                    self._reading.pop(self._views.popitem(last=False)[0], None)
            return view


def _read(place: RunPlace, *, checked: bool) -> RunView:
    try:
        with Ledger(place.location, damaged=checked) as ledger:
            facts = ledger.facts()
            if facts is None:
                return RunView()
            records = ledger.records()
            summary = summary_of(ledger, str(place.folder or place.location), facts, records)
            diary = [entry.name for entry in ledger.diary()]
            return RunView(records, summary, facts.config.stop.evaluations, diary)
    except KinshipError as error:
        return RunView(error=error.message)


def served(place: RunPlace, view: RunView, job: Job | None = None) -> ServedRun:
    """What is told of a run; ``job``: its latest, if there was one."""
    state = _state(place, view, job)
    error = view.error or (job.error if job and state == "failed" else None)
    left = _seconds_left(view) if state == "running" else None
    return ServedRun(
        id=place.id, state=state, job=job.id if job else None, summary=view.summary,
        evaluations=view.evaluations, seconds_left=left, error=error,
    )  # fmt: skip


def _state(place: RunPlace, view: RunView, job: Job | None) -> RunState:
    """By the run's lock and its job's, never by what was once written down."""
    told = job.state if job and place.folder is not None else None  # of another server's the database's lock tells
    if told in {"queued", "lost"}:
        return "queued"
    if told in {"pausing", "cancelling"}:
        return "pausing"
    if told == "running" or place.held:
        return "running"
    if view.summary is not None and view.summary.stopped is not None:
        return "finished"
    if told == "failed":
        return "failed"
    if view.summary is None:
        return "paused" if told == "paused" else "new"
    return "paused" if view.diary and view.diary[-1] == "paused" else "interrupted"


def _seconds_left(view: RunView) -> float | None:
    if view.summary is None or view.evaluations is None or not view.summary.offspring:
        return None
    done = sum(record.done for record in view.records if record.generation > 0)
    if not done:
        return None
    return max(0.0, view.summary.hours * 3600 / done * (view.evaluations - done))
