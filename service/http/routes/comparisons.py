"""Merge methods compared: the comparisons of the workspace, and as they are started, interrupted and gone on with."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from starlette.responses import Response

from service.answers.jobs import Job
from service.answers.method_comparison import MethodComparison
from service.answers.served import ServedComparison, ServedComparisons
from service.http import comparisons
from service.http.backend import Asked
from service.http.errors import documented
from service.http.idempotency import Once, accepted
from service.http.replies import reply
from service.http.requests import MethodsRequest, example

router = APIRouter(tags=["comparisons"], responses=documented(403, 404, 409, 422, 429))

PLAN: dict[str, Any] = {
    "base": "family/base",
    "cells": {
        "add": {"task": "demo_add", "model": "family/add-only"},
        "max": {"task": "demo_max", "model": "family/max-add"},
        "rev": {"task": "demo_rev"},
    },
    "evaluate": {"tasks": ["demo_add", "demo_max", "demo_rev"], "task_path": "family/tasks"},
    "methods": {"linear": {"tune": {"scale": [0.5, 1.0]}}, "ties": {}},
}


@router.get("/comparisons", response_model=ServedComparisons)
def list_comparisons(request: Request, backend: Asked) -> Response:
    """Every comparison in the workspace, with its state."""
    return reply(request, comparisons.comparisons(backend))


@router.post("/comparisons", status_code=202, response_model=Job)
def start_comparison(
    body: Annotated[MethodsRequest, Body(**example(name="compared", plan=PLAN))], backend: Asked, once: Once
) -> Response:
    """Compare merge methods, or go on with an earlier comparison by another plan."""
    return accepted(comparisons.start(backend, body, *once))


@router.get("/comparisons/{id}", response_model=ServedComparison)
def show_comparison(request: Request, id: str, backend: Asked) -> Response:
    """One of them at a glance."""
    return reply(request, comparisons.comparison(backend, id).told())


@router.get("/comparisons/{id}/result", response_model=MethodComparison)
def show_result(request: Request, id: str, backend: Asked) -> Response:
    """What it found, as `kinship compare --json` prints it; 409 before its end."""
    return reply(request, comparisons.comparison(backend, id).result())


@router.post("/comparisons/{id}/pause", response_model=Job)
def pause_comparison(request: Request, id: str, backend: Asked) -> Response:
    """Have it keep the arms that are done, and stop."""
    return reply(request, comparisons.interrupt(backend, id, cancel=False))


@router.post("/comparisons/{id}/cancel", response_model=Job)
def cancel_comparison(request: Request, id: str, backend: Asked) -> Response:
    """The same, for good: though it can always be gone on with."""
    return reply(request, comparisons.interrupt(backend, id, cancel=True))


@router.post("/comparisons/{id}/resume", status_code=202, response_model=Job)
def resume_comparison(id: str, backend: Asked, once: Once) -> Response:
    """Go on with one that nobody works on, by the plan it was started with."""
    return accepted(comparisons.resume(backend, id, *once))


@router.delete("/comparisons/{id}", status_code=204)
def delete_comparison(id: str, backend: Asked) -> None:
    """Remove one that nobody works on, with all its files."""
    comparisons.delete(backend, id)
