"""What routes and pages ask: one method a question, an answer of `service.answers` each."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from fastapi import Depends, Request

from search.ledger.ledger import Ledger
from service.answers.comparison import ComparedRuns, ReadRun, compare_read, read_run
from service.answers.export import Individual, RunExport, export_of
from service.answers.jobs import Job
from service.answers.runs import Failures, failures_of
from service.answers.served import Health, IndividualPage, RunEvent, RunEvents, ServedRun, ServedRuns
from service.answers.tree import RunLineage, trace_run
from service.http.individuals import Selection, page_of
from service.http.looking import RunView, look, served
from service.http.remembering import Found, Remembered
from service.http.settings import ServiceSettings
from service.http.workspace import IN_DATABASE, RunPlace, Workspace, id_in_database
from service.jobs.board import Board
from service.jobs.errors import NotFound
from service.jobs.supervisor import Supervisor

if TYPE_CHECKING:
    from merging.recipe.schema import Recipe

MOST_EVENTS = 500


@dataclass
class Backend:
    """A workspace and its jobs. Use as a context manager: between its ends, jobs are started and watched."""

    settings: ServiceSettings
    views: Remembered[RunView] = field(default_factory=lambda: Remembered(look, kept=64))
    _exports: Remembered[RunExport] = field(default_factory=lambda: _told(export_of))
    _lineages: Remembered[RunLineage] = field(default_factory=lambda: _told(trace_run))
    _failures: Remembered[Failures] = field(default_factory=lambda: _told(failures_of))
    _compared: Remembered[ReadRun] = field(default_factory=lambda: _told(read_run, kept=8))
    _supervisor: Supervisor | None = None

    def __post_init__(self) -> None:
        self.workspace = Workspace(self.settings)
        self.jobs = Board(self.settings.folder, self.settings.database, self.settings.most_queued)

    def hold(self) -> None:
        """Be the one server of the workspace. Raises `Conflict` where there is another."""
        self._supervisor = Supervisor(self.jobs, self.settings.slots, self.settings.most_starts)

    def __enter__(self) -> Self:
        if self._supervisor is None:
            self.hold()
        assert self._supervisor is not None
        self._supervisor.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._supervisor is not None:
            self._supervisor.__exit__()
        self._supervisor = None
        self.workspace.ledgers.close()

    def health(self) -> Health:
        """That the server works."""
        return Health(version=version("model-kinship"), folder=str(self.settings.folder), database=self._database)

    @property
    def _database(self) -> str:
        file = self.jobs.location.file
        return str(file) if file else str(self.jobs.location).rpartition("#")[0]

    def runs(self) -> ServedRuns:
        """Every run of the workspace, those too that nobody has begun to work on yet."""
        latest = self.latest()
        places = dict(self.workspace.runs())
        for id, job in latest.items():
            if id not in places and job.state not in {"done", "cancelled"} and not id.startswith(IN_DATABASE):
                places[id] = self.workspace.place_of(str(job.run))
        return ServedRuns(runs=[self._served(place, latest.get(id)) for id, place in sorted(places.items())])

    def run(self, id: str) -> ServedRun:
        """One run. Raises `NotFound`."""
        job = self.latest().get(id)
        return self._served(self.place(id, job), job)

    def latest(self) -> dict[str, Job]:
        """The latest job of each run, by the run's id; of a run of another server by its name in the database."""
        found = {id_in_database(Path(run).name): job for run, job in self.jobs.latest(elsewhere=True).items()}
        return found | {
            self.workspace.id_of(self.settings.folder / run): job for run, job in self.jobs.latest().items()
        }

    def place(self, id: str, job: Job | None = None) -> RunPlace:
        """Where the run of that id is, or will be. Raises `NotFound`."""
        if job is not None and not id.startswith(IN_DATABASE) and id not in self.workspace.runs():
            return self.workspace.place_of(str(job.run))
        return self.workspace.run(id)

    def view(self, id: str) -> RunView:
        """What a run's ledger holds. Raises `NotFound`."""
        return self.views.of(self.workspace.run(id))

    def individuals(self, id: str, selection: Selection) -> IndividualPage:
        """Some of a run's individuals: see `page_of`."""
        return page_of(self.view(id), selection)

    def individual(self, id: str, individual: str) -> Individual:
        """One individual. Raises `NotFound`."""
        found = self.view(id).individual(individual)
        if found is None:
            raise NotFound(f"The run {id} has no individual {individual!r}.", hint=f"GET /api/v1/runs/{id}/individuals")
        return found

    def recipe(self, id: str, individual: str) -> "Recipe":
        """How to make an individual of base and founders, named from the workspace: see `Descent.recipe`.

        Raises `NotFound`.
        """
        from search.history.descent import Descent, renamed

        self.individual(id, individual)
        with self.ledger(id) as ledger:
            facts = ledger.facts()
            if facts is None or individual not in ledger.genomes([individual]):
                raise NotFound(f"{individual} was not merged: it has no recipe.", hint="See its error.")
            recipe = Descent.recorded(ledger, facts, self.view(id).records).recipe(individual)
        folder = self.workspace.run(id).folder
        names = {model: self.workspace.named(path, folder) for model, path in facts.config.references.items()}
        return renamed(recipe, names)

    def export(self, id: str) -> RunExport:
        """All that a run found, as `kinship runs show --json` prints it."""
        return self._exports.of(self.workspace.run(id))

    def lineage(self, id: str) -> RunLineage:
        """A run's family tree, as `kinship tree --json` prints it."""
        return self._lineages.of(self.workspace.run(id))

    def failures(self, id: str) -> Failures:
        """What failed in a run, as `kinship runs show --failures --json` prints it."""
        return self._failures.of(self.workspace.run(id))

    def compare(self, ids: Sequence[str]) -> ComparedRuns:
        """Runs side by side, as `kinship runs compare --json` prints it."""
        return compare_read([self._compared.of(self.workspace.run(id)) for id in ids])

    def events(self, id: str, after: int = 0, most: int = MOST_EVENTS) -> RunEvents:
        """What is new in a run's diary since the event ``after``."""
        with self.ledger(id) as ledger:
            entries = ledger.events(after, most)
        events = [
            RunEvent(id=number, time=entry.time, seconds=entry.seconds, name=entry.name, facts=entry.facts)
            for number, entry in entries
        ]
        return RunEvents(events=events, last=events[-1].id if events else after)

    def last_event(self, id: str) -> int:
        """The number of the latest event of a run."""
        with self.ledger(id) as ledger:
            return ledger.last_event()

    def _served(self, place: RunPlace, job: Job | None) -> ServedRun:
        return served(place, self.views.of(place) if place.is_there else RunView(), job)

    @contextmanager
    def ledger(self, id: str) -> Iterator[Ledger]:
        """The ledger of a run, to look into. Raises `NotFound`, `LedgerError`."""
        with self.workspace.run(id).open() as ledger:
            yield ledger


def _told(answer: Callable[[str], Found], kept: int = 2) -> Remembered[Found]:
    """What a command tells of a run, of the last ones that were asked about: that of a large run is large."""
    return Remembered(lambda place, _: answer(place.name), kept=kept)


def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


Asked = Annotated[Backend, Depends(_backend)]
