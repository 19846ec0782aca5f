"""The comparisons of merge methods in the workspace: found, begun, interrupted, gone on with and deleted."""

import os
from dataclasses import dataclass
from pathlib import Path

from kinship.errors import CacheError, LedgerError
from kinship.validation import read_yaml
from search.comparison.plan import parse_plan
from search.comparison.store import NAME, arms_in
from search.ledger.location import LOCK_NAME, is_held
from service.answers.jobs import Job
from service.answers.method_comparison import FILE, MethodComparison, read_comparison
from service.answers.served import RunState, ServedComparison, ServedComparisons
from service.http import orders
from service.http.backend import Backend
from service.http.references import require_path
from service.http.requests import MethodsRequest
from service.http.searches import delete_held, submit
from service.jobs.errors import Conflict, NotFound, Refused

UNDER_WAY = {"queued", "running", "pausing"}
BUSY = {"queued": "queued", "lost": "queued", "pausing": "pausing", "cancelling": "pausing", "running": "running"}


@dataclass(frozen=True)
class ComparisonPlace:
    """A comparison: its folder, the id that addresses name it by, as those of runs are, and its latest job."""

    id: str
    name: str
    folder: Path
    job: Job | None = None

    @property
    def is_there(self) -> bool:
        """Whether anything is on record of it."""
        return (self.folder / NAME).is_file()

    @property
    def arms(self) -> int | None:
        """How many are done; None where the file is damaged or cannot be read."""
        try:
            return arms_in(self.folder)
        except CacheError:
            return None

    @property
    def done(self) -> bool:
        """Whether it came to its end once."""
        return (self.folder / FILE).is_file()

    @property
    def _is_held(self) -> bool:
        """Whether a process works on it, as far as can be known."""
        try:
            return is_held(self.folder / LOCK_NAME)
        except LedgerError:
            return False

    @property
    def state(self) -> RunState:
        """By its lock and its job's, never by what was once written down."""
        told = self.job.state if self.job else None
        if told in BUSY:
            return BUSY[told]  # type: ignore[return-value]
        if self._is_held:
            return "running"
        if told == "failed" or told == "paused":
            return told
        return "finished" if self.done else "interrupted" if self.is_there else "new"

    def result(self) -> MethodComparison:
        """What it found. Raises `Conflict` before its end, and `InvalidConfig` for a damaged file."""
        if not self.done:
            raise Conflict(f"The comparison {self.id} is {self.state}: it has no result.", hint="Wait until it ends.")
        return read_comparison(self.folder / FILE)

    def told(self) -> ServedComparison:
        """The same as an answer has it."""
        arms, job = self.arms, self.job
        error = job.error if job and self.state == "failed" else None
        if arms is None:
            error = f"Its file {NAME} is damaged, or cannot be read."
        total = job.progress.total if job and job.progress else None
        return ServedComparison(
            id=self.id, state=self.state, job=job.id if job else None, arms=arms, total=total or None,
            has_result=self.done, error=error,
        )  # fmt: skip


def comparisons(backend: Backend) -> ServedComparisons:
    """All of them, by id, those too that nobody has begun to work on yet."""
    return ServedComparisons(comparisons=[place.told() for _, place in sorted(_places(backend).items())])


def comparison(backend: Backend, id: str) -> ComparisonPlace:
    """The one of that id. Raises `NotFound`."""
    found = _places(backend).get(id)
    if found is None:
        backend.workspace.forget()  # it may be new
        found = _places(backend).get(id)
    if found is None:
        raise NotFound(f"There is no comparison {id!r} here.", hint="GET /api/v1/comparisons lists them.")
    return found


def start(backend: Backend, request: MethodsRequest, key: str | None = None, digest: str | None = None) -> Job:
    """Compare in a folder of that name. Raises `Refused`, `Conflict`, `QueueFull`, `InvalidConfig`."""
    known = backend.jobs.known(key, digest)
    if known is not None:
        return known
    folder = backend.settings.folder / require_path(request.name, backend.settings)
    if os.path.lexists(folder) and not request.extend:
        hint = "Choose another name, or `extend` it." if (folder / NAME).is_file() else "Choose another name."
        raise Conflict(f"There is a {request.name!r} in the workspace already.", hint=hint)
    if request.extend and not (folder / NAME).is_file():
        raise Conflict(f"There is no comparison {request.name!r} to be extended.", hint="Leave `extend` out.")
    order = orders.compare(request.plan, request.name, backend.settings)
    return submit(backend, order, key, digest)


def resume(backend: Backend, id: str, key: str | None = None, digest: str | None = None) -> Job:
    """Go on with one by the plan of its latest job. Raises `NotFound`, `Conflict`."""
    known = backend.jobs.known(key, digest)
    if known is not None:
        return known
    place = comparison(backend, id)
    if place.state in UNDER_WAY | {"finished"}:
        raise Conflict(f"The comparison {id} is {place.state}.", hint="Start one by another plan, with `extend`.")
    if place.job is None:
        raise Conflict(f"The comparison {id} was not started here.", hint="Start one by its plan, with `extend`.")
    file = backend.jobs.place(place.job.id) / orders.PLAN
    plan = parse_plan(read_yaml(file, "plan"), f"the plan of job {place.job.id}")
    return submit(backend, orders.compare(plan, str(place.job.run), backend.settings), key, digest)


def interrupt(backend: Backend, id: str, *, cancel: bool) -> Job:
    """Pause or cancel the job that works on one; arms that are done stay. Raises `NotFound`, `Conflict`."""
    place = comparison(backend, id)
    if place.job is None or place.job.state not in BUSY:
        who = "It was not started here: press Ctrl-C there." if place.state == "running" else "Nothing is to be done."
        raise Conflict(f"The comparison {id} is {place.state}, and no job of this service works on it.", hint=who)
    return backend.jobs.cancel(place.job.id) if cancel else backend.jobs.pause(place.job.id)


def delete(backend: Backend, id: str) -> None:
    """Remove one that nobody works on, with all its files. Raises `NotFound`, `Conflict`, `Refused`."""
    place = comparison(backend, id)
    if place.state in UNDER_WAY:
        raise Conflict(f"The comparison {id} is {place.state}.", hint="Cancel it first.")
    if place.folder.resolve() == backend.settings.folder.resolve():
        raise Refused("The workspace itself is this comparison's folder.", hint="Delete the folder by hand.")
    if place.folder.exists():
        delete_held(place.folder)
    backend.jobs.forget_run(backend.workspace.relative(place.folder))
    backend.workspace.forget()


def _places(backend: Backend) -> dict[str, ComparisonPlace]:
    workspace = backend.workspace
    latest = {workspace.folder / run: job for run, job in backend.jobs.latest("compare").items()}
    waiting = [folder for folder, job in latest.items() if job.state not in {"done", "cancelled"}]
    folders = {*workspace.comparisons(), *waiting}
    places = (
        ComparisonPlace(workspace.id_of(folder), workspace.relative(folder), folder, latest.get(folder))
        for folder in folders
    )
    return {place.id: place for place in places}
