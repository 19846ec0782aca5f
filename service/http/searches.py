"""Runs as they are started, gone on with and deleted."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from kinship.errors import KinshipError, LedgerError
from kinship.validation import read_yaml
from search.config import RunConfig, StopSettings, parse_config
from search.ledger.ledger import Ledger
from search.ledger.location import LOCK_NAME, LedgerLocation, hold_folder
from service.answers.jobs import Job
from service.http import orders
from service.http.backend import Backend
from service.http.requests import MergeRequest, RunRequest
from service.http.workspace import RunPlace, id_in_database
from service.jobs.errors import Conflict, Refused
from service.jobs.supervisor import LIGHT


def start_run(backend: Backend, request: RunRequest, key: str | None = None, digest: str | None = None) -> Job:
    """A new search in a folder of that name. Raises `Refused`, `Conflict`, `QueueFull`."""
    known = backend.jobs.known(key, digest)
    if known is not None:
        return known
    folder = backend.settings.folder / request.name
    if os.path.lexists(folder):
        raise Conflict(f"There is a {request.name!r} in the workspace already.", hint="Choose another name.")
    ledger = _ledger_url(backend, request.name)
    if id_in_database(request.name) in backend.workspace.runs():
        raise Conflict(f"There is a run {request.name!r} in the database already.", hint="Choose another name.")
    order = orders.search(request.config, request.name, ".", ledger, backend.settings)
    return submit(backend, order, key, digest)


def resume_run(backend: Backend, id: str, key: str | None = None, digest: str | None = None) -> Job:
    """Go on with a run that is neither finished nor worked on. Raises `NotFound`, `Conflict`.

    A finished one whose extension was paused, before that was on record, is extended.
    """
    known = backend.jobs.known(key, digest)
    if known is not None:
        return known
    if backend.run(id).state == "finished" and not _waits_to_be_extended(backend, id):
        raise Conflict(f"The run {id} is finished.", hint="Extend it: give it another `stop`.")
    return _go_on(backend, id, None, key, digest)


def extend_run(backend: Backend, id: str, stop: StopSettings, key: str | None = None, digest: str | None = None) -> Job:
    """Go on with a run until something else says stop. Raises `NotFound`, `Conflict`."""
    known = backend.jobs.known(key, digest)
    return known or _go_on(backend, id, stop, key, digest)


def interrupt_run(backend: Backend, id: str, *, cancel: bool) -> Job:
    """Pause or cancel the job that works on a run. Raises `NotFound`, `Conflict`."""
    state = backend.run(id).state
    job = backend.latest().get(id)
    if job is None or state not in {"queued", "running", "pausing"}:
        who = "It was not started here: press Ctrl-C there." if state == "running" else "Nothing is left to be done."
        raise Conflict(f"The run {id} is {state}, and no job of this service works on it.", hint=who)
    return backend.jobs.cancel(job.id) if cancel else backend.jobs.pause(job.id)


def delete_run(backend: Backend, id: str) -> None:
    """Remove a run that nobody works on, with all its files. Raises `NotFound`, `Conflict`, `Refused`."""
    job = backend.latest().get(id)
    if job is not None and job.state in {"queued", "lost", "running", "pausing", "cancelling"}:
        raise Conflict(f"Job {job.id} works on the run {id}.", hint="Cancel it first.")
    place = backend.place(id, job)
    if place.folder is not None and not place.is_there:
        _delete_unused(place.folder)
    elif place.folder is None:
        _delete_from_database(place)
    elif place.folder.resolve() == backend.settings.folder.resolve():
        raise Refused("The workspace itself is this run's folder.", hint="Delete the folder by hand.")
    else:
        delete_held(place.folder, None if place.location.file else lambda: _delete_from_database(place))
    if place.folder is not None:
        backend.jobs.forget_run(backend.workspace.relative(place.folder))
    backend.workspace.forget()


def make_model(backend: Backend, id: str, individual: str, key: str | None = None, digest: str | None = None) -> Job:
    """Merge an individual of a run into a model folder, by its recipe. Raises `NotFound`, `Refused`, `QueueFull`."""
    recipe = backend.recipe(id, individual)
    name = re.sub("[^A-Za-z0-9_.-]+", "-", f"{id}-{individual}").strip(".-_")[-100:]
    request = MergeRequest(name=name.lstrip(".-_") or "model", recipe=recipe.to_dict())
    return submit(backend, orders.merge(request, backend.settings), key, digest)


def submit(backend: Backend, order: orders.Order, key: str | None = None, digest: str | None = None) -> Job:
    """Put an order on the board. Raises `Conflict`, `QueueFull`, `Refused`."""
    devices = {slot.partition(":")[0] for slot in backend.settings.slots} | {LIGHT}
    if order.device not in devices:
        raise Refused(f"This server has no {order.device} slot.", hint=f"Start it with --slot {order.device}:0.")
    return backend.jobs.submit(
        order.kind, order.title, order.arguments, files=order.files, device=order.device, run=order.run, key=key,
        digest=digest,
    )  # fmt: skip


def _go_on(backend: Backend, id: str, stop: StopSettings | None, key: str | None, digest: str | None) -> Job:
    job = backend.latest().get(id)
    place = backend.place(id, job)
    if place.folder is None:
        raise Conflict(f"The run {id} has no folder here.", hint="Go on with it where it was started.")
    if place.is_there and place.held:
        raise Conflict(f"A search works on the run {id}.", hint="Wait for it, or stop it first.")
    config, root = _recorded(backend, place, job)
    if stop is not None:
        config = config.model_copy(update={"stop": stop})
    run = backend.workspace.relative(place.folder)
    ledger = str(place.location) if place.location.file is None else _ledger_url(backend, run, place)
    return submit(backend, orders.search(config, run, root, ledger, backend.settings), key, digest)


def _waits_to_be_extended(backend: Backend, id: str) -> bool:
    job, place = backend.latest().get(id), backend.place(id)
    if job is None or job.state == "done" or place.folder is None:
        return False
    with place.open() as ledger:
        facts = ledger.facts()
    return facts is not None and facts.config.stop != _recorded(backend, place, job)[0].stop


def _recorded(backend: Backend, place: RunPlace, job: Job | None) -> tuple[RunConfig, str]:
    """The config of a run, and where its paths count from: as its job had it, else as its ledger and folder tell."""
    if job is not None:
        file = backend.jobs.place(job.id) / "run.yml"
        root = next(part for part in job.arguments if part.startswith("--root=")).removeprefix("--root=")
        return parse_config(read_yaml(file, "run file"), f"the run file of job {job.id}"), root
    with place.open() as ledger:
        facts = ledger.facts()
    if facts is None:
        raise LedgerError(f"The run {place.id} holds nothing yet.", hint="Start a new one.")
    assert place.folder is not None
    config = facts.config
    roots = [parent for parent in place.folder.absolute().parents if parent.is_relative_to(backend.settings.folder)]
    here = [root for root in reversed(roots) if _has_models(config, root)]
    return config, os.path.relpath(here[0] if here else backend.settings.folder, backend.settings.folder)


def _has_models(config: RunConfig, root: Path) -> bool:
    return all((root / model).exists() for model in config.references.values() if not os.path.isabs(model))


def _ledger_url(backend: Backend, run: str, place: RunPlace | None = None) -> str | None:
    """Where a run is kept, without a password: that goes to the job by its environment."""
    if backend.settings.database is None or (place is not None and place.is_there):
        return None
    return str(LedgerLocation.parse(backend.settings.database, Path(run).name))


def delete_held(folder: Path, first: Callable[[], None] | None = None) -> None:
    """Remove the folder of a run or a comparison that nobody works in, after what is to be done ``first``.

    Raises `Conflict`.
    """
    try:
        lock = hold_folder(folder)
    except KinshipError as error:
        raise Conflict(error.message, hint=error.hint) from None
    try:
        if first is not None:
            first()
        gone = folder.with_name(f".{folder.name}.{os.getpid()}.deleted")
        os.rename(folder, gone)
    finally:
        lock.release()
    shutil.rmtree(gone, ignore_errors=True)


def _delete_unused(folder: Path) -> None:
    """The folder of a run that never began, unless somebody else keeps something there."""
    if folder.is_dir() and {file.name for file in folder.iterdir()} <= {LOCK_NAME}:
        shutil.rmtree(folder)


def _delete_from_database(place: RunPlace) -> None:
    try:
        with Ledger(place.location, exclusive=True) as ledger:
            ledger.delete()
    except LedgerError as error:
        raise Conflict(error.message, hint=error.hint) from None
