"""A client of the service: the answers of `service.answers`, asked for over HTTP.

    with Client("http://127.0.0.1:8421") as service:
        job = service.start_run("first", config)
        for event in service.events("first", until="ended"):
            print(event.name, event.facts)
        print(service.wait(job).state, service.export("first").verdict)

`AsyncClient` has the same methods to be awaited. Every failure is a `ServiceError`.
"""

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from kinship.errors import InvalidConfig, KinshipError
from service.answers.base import Answer
from service.answers.comparison import ComparedRuns
from service.answers.export import Individual, RunExport
from service.answers.jobs import Job, JobLog, Jobs
from service.answers.runs import Failures
from service.answers.served import (
    Artefacts,
    Health,
    IndividualPage,
    ModelFacts,
    RunEvent,
    ServedModels,
    ServedRun,
    ServedRuns,
)  # fmt: skip
from service.answers.tree import RunLineage

API = "/api/v1"
OVER = frozenset({"paused", "cancelled", "done", "failed"})
SECONDS = 0.5  # between two looks at a job, or two attempts to come back

Found = TypeVar("Found", bound=Answer)
Query = Mapping[str, Any]


class ServiceError(KinshipError):
    """What the server refuses or cannot do: its code, message and hint, and the HTTP ``status``."""

    code = "service_error"

    def __init__(self, status: int, message: str, *, hint: str = "", told: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.told = told
        """The code that the server gave."""


class NoService(ServiceError):
    """Nobody answers at the address, or what answers is no service; it may be one later."""

    def __init__(self, address: object, error: Exception) -> None:
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        hint = "Is that the address of a kinship service of this version, and does it run?"
        super().__init__(0, f"No service answers at {address}: {said}.", hint=hint)


class _Asking:
    """What both clients ask, as (method, path, query, body, kind of answer)."""

    @staticmethod
    def path(*parts: object) -> str:
        """A path below the API; what is in a part stays in it."""
        return API + "".join(f"/{quote(str(part), safe='')}" for part in parts)

    @staticmethod
    def arguments(token: str | None, timeout: float) -> dict[str, Any]:
        """Of an httpx client."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return {"headers": headers, "timeout": httpx.Timeout(timeout, read=max(timeout, 60.0)), "trust_env": False}

    @staticmethod
    def read(response: httpx.Response, kind: type[Found]) -> Found:
        """The answer in a response. Raises `ServiceError`."""
        _require(response)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise NoService(response.url, error) from None


def _require(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        told = response.json()
        message, hint, code = told["message"], told["hint"], told["code"]
    except (ValueError, KeyError, TypeError):
        message, hint, code = f"The server answered {response.status_code}.", "Is that a kinship service?", ""
    raise ServiceError(response.status_code, message, hint=hint, told=code)


def _given(**query: Any) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _event(lines: Sequence[str]) -> RunEvent | None:
    """The event that some lines of a stream tell of; None for a comment."""
    data = [line.partition(":")[2].removeprefix(" ") for line in lines if line.startswith("data:")]
    try:
        return RunEvent.model_validate_json("\n".join(data)) if data else None
    except ValidationError as error:
        raise NoService("the address of that stream", error) from None


class Client(_Asking):
    """Ask a server. Use as a context manager, or `close` it.

    Its methods raise `ServiceError`: what the server refuses, or that there is none (`NoService`). ``address`` is that
    which `kinship serve` prints; anything else raises `InvalidConfig`.
    """

    def __init__(
        self,
        address: str,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not re.match(r"https?://[^/\s]", address):
            raise InvalidConfig(f"{address!r} is no address of a service.", hint="Write http://HOST:PORT.")
        if token is not None and not re.fullmatch(r"[!-~]+", token):
            raise InvalidConfig("The token is no plain characters, so that no server has it.", hint="Look at it again.")
        try:
            self._http = httpx.Client(base_url=address, transport=transport, **self.arguments(token, timeout))
        except httpx.InvalidURL as error:
            raise InvalidConfig(f"{address!r} is no address: {error}.", hint="Write http://HOST:PORT.") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def get(self, kind: type[Found], *path: object, **query: Any) -> Found:
        """Any answer by its path: ``get(Health, "health")``."""
        return self.read(self._ask("GET", self.path(*path), params=_given(**query)), kind)

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.RequestError as error:
            raise NoService(self._http.base_url, error) from error

    def post(self, kind: type[Found], *path: object, body: object = None) -> Found:
        """Ask for something to be done, once, though the connection may fail on the way."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        for attempt in (1, 2, 3):
            try:
                return self.read(self._ask("POST", self.path(*path), json=body, headers=headers), kind)
            except NoService:
                if attempt == 3:
                    raise
                time.sleep(SECONDS)
        raise AssertionError

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
        _require(response)
        return response.content

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
                        _require(response)
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

    def start_run(self, name: str, config: Mapping[str, Any]) -> Job:
        """Start a search."""
        return self.post(Job, "runs", body={"name": name, "config": config})

    def plan_run(self, config: Mapping[str, Any], *, timed: bool = False) -> Job:
        """Plan one: a job whose result is a `SearchPlan`."""
        return self.post(Job, "plans", body={"config": config, "timed": timed})

    def pause_run(self, run: str) -> Job:
        """Have it keep what it has, and stop."""
        return self.post(Job, "runs", run, "pause")

    def cancel_run(self, run: str) -> Job:
        """The same, for good: though it can always be gone on with."""
        return self.post(Job, "runs", run, "cancel")

    def resume_run(self, run: str) -> Job:
        """Go on with it."""
        return self.post(Job, "runs", run, "resume")

    def extend_run(self, run: str, stop: Mapping[str, Any]) -> Job:
        """Go on with it until something else says stop."""
        return self.post(Job, "runs", run, "extend", body={"stop": stop})

    def delete_run(self, run: str) -> None:
        """Remove it."""
        _require(self._ask("DELETE", self.path("runs", run)))

    def cancel(self, job: Job | int) -> Job:
        """End a job."""
        return self.post(Job, "jobs", job if isinstance(job, int) else job.id, "cancel")

    def measure_matrix(self, models: Sequence[str], base: str, **options: Any) -> Job:
        """A kinship matrix: a job whose result is a `Matrix`."""
        return self.post(Job, "kinship", "matrices", body={"models": list(models), "base": base, **options})

    def advise(self, models: Sequence[str], base: str, **options: Any) -> Job:
        """Which pairs to merge: a job whose result is an `Advice`."""
        return self.post(Job, "kinship", "advice", body={"models": list(models), "base": base, **options})

    def merge(self, name: str, recipe: Mapping[str, Any], **options: Any) -> Job:
        """A merge: a job whose result is a `Merged`."""
        return self.post(Job, "merges", body={"name": name, "recipe": recipe, **options})

    def score(self, models: Sequence[str], evaluate: Mapping[str, Any]) -> Job:
        """Scores: a job whose result is `Scores`."""
        return self.post(Job, "scores", body={"models": list(models), "evaluate": evaluate})

    def trace(self, models: Sequence[str], kind: str = "recorded", **options: Any) -> Job:
        """Descent: a job whose result is a `FamilyTree`, a `RecoveredHeritage` or a `Dendrogram`."""
        return self.post(Job, "trees", body={"models": list(models), "kind": kind, **options})


class AsyncClient:
    """The methods of `Client`, to be awaited; `events` and `individuals` are iterated by ``async for``.

    Each call is made in a thread of its own, so that one place says how things are asked.
    """

    def __init__(self, address: str, token: str | None = None, *, timeout: float = 30.0) -> None:
        self._client = Client(address, token, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._client.close)

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._client, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            return await asyncio.to_thread(asked, *arguments, **options)

        return call

    async def events(self, run: str, after: int = 0, *, until: str | None = None) -> AsyncIterator[RunEvent]:
        """See `Client.events`."""
        async for event in _in_threads(self._client.events(run, after, until=until)):
            yield event

    async def individuals(self, run: str, **query: Any) -> AsyncIterator[Individual]:
        """See `Client.individuals`."""
        async for individual in _in_threads(self._client.individuals(run, **query)):
            yield individual


async def _in_threads(items: Iterator[Any]) -> AsyncIterator[Any]:
    over = object()
    while (item := await asyncio.to_thread(next, items, over)) is not over:
        yield item
