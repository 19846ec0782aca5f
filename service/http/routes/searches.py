"""Runs as they are started, planned, paused, gone on with and deleted."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from starlette.responses import Response

from service.answers.jobs import Job
from service.http import orders, searches
from service.http.backend import Asked
from service.http.errors import documented
from service.http.idempotency import Once, accepted
from service.http.replies import reply
from service.http.requests import ExtendRequest, PlanRequest, RunRequest, example

router = APIRouter(tags=["runs"], responses=documented(403, 404, 409, 422, 429))

CONFIG: dict[str, Any] = {
    "base": "family/base",
    "founders": ["family/add-only", "family/max-add"],
    "evaluate": {"tasks": ["demo_add", "demo_max"], "task_path": "family/tasks"},
    "stop": {"evaluations": 12},
}


@router.post("/runs", status_code=202, response_model=Job)
def start_run(
    body: Annotated[RunRequest, Body(**example(name="first", config=CONFIG))], backend: Asked, once: Once
) -> Response:
    """Start a search: its job waits for a slot."""
    return accepted(searches.start_run(backend, body, *once))


@router.post("/plans", status_code=202, response_model=Job)
def plan_run(body: Annotated[PlanRequest, Body(**example(config=CONFIG))], backend: Asked, once: Once) -> Response:
    """What a search would do and take: a job whose result is a `SearchPlan`."""
    return accepted(searches.submit(backend, orders.plan(body, backend.settings), *once))


@router.post("/runs/{run}/pause", response_model=Job)
def pause_run(request: Request, run: str, backend: Asked) -> Response:
    """Have it keep what it has, and stop."""
    return reply(request, searches.interrupt_run(backend, run, cancel=False))


@router.post("/runs/{run}/cancel", response_model=Job)
def cancel_run(request: Request, run: str, backend: Asked) -> Response:
    """The same, for good: though a run can always be gone on with."""
    return reply(request, searches.interrupt_run(backend, run, cancel=True))


@router.post("/runs/{run}/resume", status_code=202, response_model=Job)
def resume_run(run: str, backend: Asked, once: Once) -> Response:
    """Go on with a run that nobody works on."""
    return accepted(searches.resume_run(backend, run, *once))


@router.post("/runs/{run}/extend", status_code=202, response_model=Job)
def extend_run(
    run: str, body: Annotated[ExtendRequest, Body(**example(stop={"evaluations": 40}))], backend: Asked, once: Once
) -> Response:
    """Go on with a run, a finished one, too, until something else says stop."""
    return accepted(searches.extend_run(backend, run, body.stop, *once))


@router.delete("/runs/{run}", status_code=204)
def delete_run(run: str, backend: Asked) -> None:
    """Remove a run that nobody works on, with all its files."""
    searches.delete_run(backend, run)
