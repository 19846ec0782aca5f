"""What a client asks: runs, comparisons, models, jobs; events as they come."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from kinship.output import output_file
from service.answers.comparison import ComparedRuns
from service.answers.export import Individual, RunExport
from service.answers.jobs import Job, JobLog, Jobs
from service.answers.method_comparison import MethodComparison
from service.answers.runs import Failures
from service.answers.served import (
    Artefacts,
    Health,
    IndividualPage,
    ModelFacts,
    RunEvent,
    ServedComparison,
    ServedComparisons,
    ServedModels,
    ServedRun,
    ServedRuns,
)  # fmt: skip
from service.answers.tree import RunLineage
from service.client.connection import SECONDS, Connection, Found, require
from service.client.errors import NoService

OVER = frozenset({"paused", "cancelled", "done", "failed"})


class Looking(Connection):
    """Everything that changes nothing. Its methods raise `ServiceError`."""

    def health(self) -> Health:
        """That it works."""
        return self.get(Health, "health")

    def runs(self) -> ServedRuns:
        """Every run."""
        return self.get(ServedRuns, "runs")

    def run(self, run: str) -> ServedRun:
        """One run."""
        return self.get(ServedRun, "runs", run)

    def export(self, run: str) -> RunExport:
        """All that a run found."""
        return self.get(RunExport, "runs", run, "export")

    def lineage(self, run: str) -> RunLineage:
        """Its family tree."""
        return self.get(RunLineage, "runs", run, "lineage")

    def failures(self, run: str) -> Failures:
        """What failed in it."""
        return self.get(Failures, "runs", run, "failures")

    def compare(self, *runs: str) -> ComparedRuns:
        """Runs side by side."""
        return self.get(ComparedRuns, "compared-runs", run=list(runs))

    def individuals(self, run: str, **query: Any) -> Iterator[Individual]:
        """Its individuals, page by page; ``query`` as of the route."""
        after = None
        while True:
            page = self.get(IndividualPage, "runs", run, "individuals", **query, after=after)
            yield from page.individuals
            after = page.next
            if after is None:
                return

    def artefacts(self, run: str) -> Artefacts:
        """Its files."""
        return self.get(Artefacts, "runs", run, "artefacts")

    def download(self, run: str, path: str) -> bytes:
        """One of its files."""
        response = self._ask("GET", f"{self.path('runs', run, 'artefacts')}/{quote(path)}")
        require(response)
        return response.content

    def save_folder(self, of: str | Job | int, folder: str, to: str | Path) -> Path:
        """A folder of a run, or of what a job made, as one tar at ``to``, through lost connections and restarts.

        Of contents that change meanwhile it begins anew. Raises `OutputExists`.
        """
        to, tag = Path(to), ""
        place = ("runs", of) if isinstance(of, str) else ("jobs", of if isinstance(of, int) else of.id)
        path = f"{self.path(*place, 'archives')}/{quote(folder)}"
        with output_file(to) as partial, open(partial, "wb") as file:
            while True:
                headers = {"Range": f"bytes={file.tell()}-", "If-Range": tag} if tag else {}
                with suppress(httpx.TransportError), self._http.stream("GET", path, headers=headers) as response:
                    if not response.is_success:
                        response.read()
                        require(response)
                    if response.status_code != 206:
                        file.seek(0)
                        file.truncate()
                    tag = response.headers["ETag"]
                    for part in response.iter_raw():
                        file.write(part)
                    return to
                if not tag:
                    raise NoService(self._http.base_url, ConnectionError("the connection was lost"))
                time.sleep(SECONDS)

    def events(self, run: str, after: int = 0, *, until: str | None = None) -> Iterator[RunEvent]:
        """Its diary from the event ``after`` on, then what comes, each once, through lost connections and restarts.

        Ends after an event called ``until``; else never by itself.
        """
        while True:
            headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
            try:
                with self._http.stream("GET", self.path("runs", run, "stream"), headers=headers) as response:
                    if not response.is_success:
                        response.read()
                        require(response)
                    lines: list[str] = []
                    for line in response.iter_lines():
                        if line:
                            lines.append(line)
                            continue
                        event, lines = _event(lines), []
                        if event is not None and event.id > after:
                            after = event.id
                            yield event
                            if event.name == until:
                                return
            except httpx.TransportError:
                pass
            time.sleep(SECONDS)

    def comparisons(self) -> ServedComparisons:
        """Every comparison of merge methods."""
        return self.get(ServedComparisons, "comparisons")

    def comparison(self, comparison: str) -> ServedComparison:
        """One of them."""
        return self.get(ServedComparison, "comparisons", comparison)

    def comparison_result(self, comparison: str) -> MethodComparison:
        """What it found."""
        return self.get(MethodComparison, "comparisons", comparison, "result")

    def models(self) -> ServedModels:
        """Every model."""
        return self.get(ServedModels, "models")

    def model(self, reference: str, *, identity: bool = False) -> ModelFacts:
        """What a model is."""
        return self.get(ModelFacts, "models", "facts", reference=reference, identity=identity)

    def jobs(self, **query: Any) -> Jobs:
        """Those that wait and the latest of the others; ``query`` as of the route."""
        return self.get(Jobs, "jobs", **query)

    def job(self, id: int) -> Job:
        """One job."""
        return self.get(Job, "jobs", id)

    def log(self, id: int, after: int = 0) -> JobLog:
        """A part of its log."""
        return self.get(JobLog, "jobs", id, "log", after=after)

    def wait(self, job: Job | int, timeout: float | None = None) -> Job:
        """The job once it is over, through lost connections and restarts, of any length without ``timeout``.

        Raises `TimeoutError`.
        """
        id = job if isinstance(job, int) else job.id
        until = None if timeout is None else time.monotonic() + timeout
        state = "not heard of"
        while True:
            with suppress(NoService):
                found = self.job(id)
                state = found.state
                if state in OVER:
                    return found
            if until is not None and time.monotonic() > until:
                raise TimeoutError(f"Job {id} is {state} after {timeout} seconds.")
            time.sleep(SECONDS)

    def result(self, kind: type[Found], job: Job | int) -> Found:
        """What a job found: ``result(Matrix, job)``."""
        return self.get(kind, "jobs", job if isinstance(job, int) else job.id, "result")


def _event(lines: Sequence[str]) -> RunEvent | None:
    """The event that some lines of a stream tell of; None for a comment."""
    data = [line.partition(":")[2].removeprefix(" ") for line in lines if line.startswith("data:")]
    try:
        return RunEvent.model_validate_json("\n".join(data)) if data else None
    except ValidationError as error:
        raise NoService("the address of that stream", error) from None
