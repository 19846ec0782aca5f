"""What the runs of a workspace are at the moment: states, summaries, individuals; read once for everybody who asks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinship.errors import KinshipError
from search.history.export import describe
from search.ledger.location import identity
from search.ledger.records import RESULTS, Entry, Record
from service.answers.export import Individual, legend
from service.answers.jobs import Job
from service.answers.runs import RunSummary, summary_of
from service.answers.served import RunState, ServedRun
from service.http.workspace import RunPlace

if TYPE_CHECKING:
    from search.ledger.ledger import Ledger, RunFacts

AT_ONCE = 500  # events, or individuals, by one query


@dataclass(frozen=True)
class RunView:
    """A run as its ledger had it at one moment; ``error`` where that could not be read.

    last: the number of the latest event that is in it. which: what tells the run from another one of its name.
    """

    records: Sequence[Record] = ()
    summary: RunSummary | None = None
    facts: "RunFacts | None" = None
    diary: Sequence[str] = ()
    error: str | None = None
    last: int = 0
    which: object = None

    @property
    def evaluations(self) -> int | None:
        """The budget of offspring, if there is one."""
        return None if self.facts is None else self.facts.config.stop.evaluations

    @property
    def legend(self) -> str:
        """What the numbers of its individuals are; empty where nothing is on record."""
        if self.facts is None:
            return ""
        tasks = {name: task["metric"] for name, task in self.facts.tasks.items()}
        return legend(self.facts.config.strategy.metric, tasks)

    def individual(self, id: str) -> Individual | None:
        """One of them, as the export has it."""
        by_id = {record.id: record for record in self.records}
        return Individual.model_validate(describe(by_id[id], by_id)) if id in by_id else None

    def individuals(self, records: Sequence[Record]) -> list[Individual]:
        """These of them, as the export has them."""
        by_id = {record.id: record for record in self.records}
        return [Individual.model_validate(describe(record, by_id)) for record in records]


def look(place: RunPlace, known: RunView | None = None) -> RunView:
    """The view of a run. Cost: reading its records, 0.1 s for a thousand; of those ``known`` only what changed since.

    What was recorded of an individual stays, and each addition is an event, so that events tell what to read again.
    """
    file = place.location.file  # asked before it is opened: one that comes meanwhile is seen as another next time
    which = place.location, identity(file) if file else place.state[:1]
    try:
        with place.open() as ledger:
            return _look(place, ledger, RunView(which=which) if known is None or known.which != which else known)
    except KinshipError as error:
        return RunView(error=error.message)


def _look(place: RunPlace, ledger: "Ledger", known: RunView) -> RunView:
    if not known.last:
        last = ledger.last_event()  # before all else: what comes meanwhile is new next time
        told, touched = [entry.name for entry in ledger.diary(last)], None
    else:
        new = _events(ledger, known.last)
        last = new[-1][0] if new else known.last
        told = [entry.name for _, entry in new if entry.name not in RESULTS]
        touched = {id for _, entry in new for id in _individuals(entry)}
    facts = ledger.facts() if known.facts is None or told else known.facts
    if facts is None:
        return RunView(which=known.which)
    records = {record.id: record for record in known.records}
    all_of_them = touched is None or len(touched) > AT_ONCE
    records |= {record.id: record for record in ledger.records(None if all_of_them else touched)}
    return RunView(
        list(records.values()),
        summary_of(ledger, str(place.folder or place.location), facts, list(records.values())),
        facts,
        [*known.diary, *told],
        last=last,
        which=known.which,
    )


def _events(ledger: "Ledger", after: int) -> list[tuple[int, Entry]]:
    found: list[tuple[int, Entry]] = []
    while True:
        page = ledger.events(found[-1][0] if found else after, AT_ONCE)
        found += page
        if len(page) < AT_ONCE:
            return found


def _individuals(entry: Entry) -> list[str]:
    if entry.name == "added":
        return list(entry.facts["individuals"])
    return [entry.facts["individual"]] if entry.name in RESULTS else []


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
    if told == "running" or _is_held(place):
        return "running"
    if view.summary is not None and view.summary.stopped is not None:
        return "finished"
    if told == "failed":
        return "failed"
    if view.summary is None:
        return "paused" if told == "paused" else "new"
    return "paused" if view.diary and view.diary[-1] == "paused" else "interrupted"


def _is_held(place: RunPlace) -> bool:
    """Whether a search works on it, as far as can be known: a database that does not answer keeps no others back."""
    try:
        return place.held
    except KinshipError:
        return False


def _seconds_left(view: RunView) -> float | None:
    if view.summary is None or view.evaluations is None or not view.summary.offspring:
        return None
    done = sum(record.done for record in view.records if record.generation > 0)
    if not done:
        return None
    return max(0.0, view.summary.hours * 3600 / done * (view.evaluations - done))
