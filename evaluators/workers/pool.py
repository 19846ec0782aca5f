"""Workers elsewhere, kept busy: what pools of local processes and of Ray actors have in common."""

import pickle
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

from evaluators.workers.base import Failure, Setup, setup_failed, words
from evaluators.workers.serving import Report
from evaluators.workers.settings import WorkerSettings
from kinship.errors import InvalidConfig


class WorkerLost(Exception):
    """A worker is gone; ``output`` are the last lines that it printed, where they are known."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.output = output


class RemoteWorker(Protocol):
    """The near side of one worker, which reports that it has started, how its setup ended, then on each payload."""

    def send(self, payload: bytes) -> None:
        """Give it a pickled payload; raises `WorkerLost`."""
        ...

    def receive(self) -> Report:
        """The report that the launcher's ``wait`` announced; raises `WorkerLost`."""
        ...

    def inspect(self) -> str:
        """Where it is and what it printed last, as far as that can be found out."""
        ...

    def kill(self) -> None:
        """End it at once, whatever it is doing. Twice does no harm."""
        ...


W = TypeVar("W", bound=RemoteWorker)


class Launcher(Protocol[W]):
    """Where workers come from."""

    @property
    def size(self) -> int:
        """How many there are at once."""
        ...

    def launch(self, setup: bytes, place: int) -> W:
        """Start a worker with a pickled setup at one of ``size`` places, without waiting for it."""
        ...

    def wait(self, workers: Sequence[W], timeout: float | None) -> Collection[W]:
        """Those that have something to report or are gone, once there are any; none after ``timeout`` seconds."""
        ...

    def close(self) -> None:
        """Leave nothing behind; all workers have ended."""
        ...


@dataclass(eq=False)
class _Job:
    """A payload with a worker, for the nth time; ``wanted`` until the iteration that asked for it ends."""

    index: int
    attempt: int
    wanted: bool = True


@dataclass(eq=False)
class _Slot(Generic[W]):
    """A place for a worker, and how far the one there has come."""

    place: int
    worker: W
    ready: bool = False
    job: _Job | None = None
    deadline: float | None = None
    failed_starts: int = 0


Ended = list[tuple[_Job, Any]]


class RemotePool(Generic[W]):
    """A `WorkerPool` over a launcher: hands out payloads, watches the clock, replaces the dead."""

    def __init__(self, settings: WorkerSettings, setup: Setup, launcher: Launcher[W]) -> None:
        self.size = launcher.size
        self._settings = settings
        self._launcher = launcher
        self._slots: list[_Slot[W]] = []
        self._running = False
        try:
            self._setup = _pickled(setup)
            for place in range(self.size):
                self._slots.append(_Slot(place, launcher.launch(self._setup, place)))
        except BaseException:
            self.close()
            raise

    def run(self, payloads: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """See `WorkerPool.run`."""
        if self._running or not self._slots:
            raise RuntimeError("A pool runs one sequence of payloads at a time, and none once it is closed.")
        self._running = True
        try:
            yield from self._run(payloads)
        finally:
            self._running = False
            for slot in self._slots:
                if slot.job:
                    slot.job.wanted = False

    def _run(self, payloads: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        waiting = deque(_Job(index, 1) for index in range(len(payloads)))
        ended: deque[tuple[_Job, Any]] = deque()
        unfinished = len(payloads)
        while unfinished:
            ended += self._hand_out(payloads, waiting)  # first, so that nobody idles while the caller looks at a result
            if not ended:
                ended += self._hear()
                continue
            job, outcome = ended.popleft()
            if job.wanted and self._deserves_another_try(outcome):
                waiting.append(_Job(job.index, job.attempt + 1))
            elif job.wanted:
                unfinished -= 1
                yield job.index, outcome

    def _deserves_another_try(self, outcome: Any) -> bool:
        if not isinstance(outcome, Failure) or outcome.attempts >= self._settings.attempts:
            return False
        return outcome.kind != "raised" or self._settings.retry_raised

    def _hand_out(self, payloads: Sequence[Any], waiting: deque[_Job]) -> Ended:
        """Give every idle worker a payload; returns those that cannot be sent."""
        for slot in self._slots:
            if not waiting:
                break
            if not slot.ready or slot.job:
                continue
            job = waiting.popleft()
            try:
                payload = pickle.dumps(payloads[job.index])
            except Exception as error:
                return [(job, Failure.of(error, job.attempt))]
            try:
                slot.worker.send(payload)
            except WorkerLost:  # it died with nothing to do: the payload has not been tried
                waiting.appendleft(job)
                self._replace(slot)
            else:
                slot.job, slot.deadline = job, _after(self._settings.hang_seconds)
        return []

    def _hear(self) -> Ended:
        """Wait until something happens; returns the payloads that this ended, each with its result or failure."""
        deadline = min((slot.deadline for slot in self._slots if slot.deadline is not None), default=None)
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        heard = self._launcher.wait([slot.worker for slot in self._slots], timeout)
        ended: Ended = []
        for slot in self._slots:
            if slot.worker in heard:
                ended += self._listen(slot)
            elif slot.deadline is not None and time.monotonic() >= slot.deadline:
                limit = self._settings.hang_seconds if slot.ready else self._settings.setup_seconds
                ended += self._lose(slot, "hung", f"no end after {limit:g} seconds", slot.worker.inspect())
        return ended

    def _listen(self, slot: _Slot[W]) -> Ended:
        try:
            report = slot.worker.receive()
        except WorkerLost as loss:
            return self._lose(slot, "lost", loss.message, loss.output)
        if report.kind == "unusable":
            self.close()
            cause = pickle.loads(report.content) if report.content else None
            raise setup_failed(report.message, report.traceback) from cause
        if report.kind == "started":
            slot.deadline = _after(self._settings.setup_seconds)
            return []
        job, slot.job, slot.deadline = slot.job, None, None
        if report.kind == "ready":
            slot.ready, slot.failed_starts = True, 0
        return [(job, _outcome(report, job.attempt))] if job else []

    def _lose(self, slot: _Slot[W], kind: Literal["hung", "lost"], message: str, output: str) -> Ended:
        """Replace a worker; returns the payload it had. A setup that always ends so ends the pool."""
        if not slot.ready:
            slot.failed_starts += 1
            if slot.failed_starts == self._settings.attempts:
                self.close()
                raise setup_failed(message, output)
        job = slot.job
        self._replace(slot)
        return [(job, Failure(kind, message, output, job.attempt))] if job else []

    def _replace(self, slot: _Slot[W]) -> None:
        slot.worker.kill()
        slot.worker = self._launcher.launch(self._setup, slot.place)
        slot.ready, slot.job, slot.deadline = False, None, None

    def close(self) -> None:
        """End all workers at once and whatever they are doing."""
        slots, self._slots = self._slots, []
        for slot in slots:
            slot.worker.kill()
        self._launcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pickled(setup: Setup) -> bytes:
    try:
        return pickle.dumps(setup)
    except Exception as error:
        raise InvalidConfig(
            f"The setup of workers cannot be pickled: {words(error)}",
            hint="Use a class or function that stands in a module, with plain contents.",
        ) from error


def _outcome(report: Report, attempt: int) -> Any:
    if report.kind == "raised":
        return Failure("raised", report.message, report.traceback, attempt)
    try:
        return pickle.loads(report.content)
    except Exception as error:
        return Failure.of(error, attempt)


def _after(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds
