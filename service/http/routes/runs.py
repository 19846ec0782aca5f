"""Runs: which there are, and what each found."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.answers.comparison import ComparedRuns
from service.answers.export import RunExport
from service.answers.runs import Failures
from service.answers.served import ServedRun, ServedRuns
from service.answers.tree import RunLineage
from service.http.backend import Asked
from service.http.errors import documented
from service.http.replies import reply

router = APIRouter(tags=["runs"], responses=documented(404, 422))


@router.get("/runs", response_model=ServedRuns)
def list_runs(request: Request, backend: Asked) -> Response:
    """Every run in the workspace, with its state."""
    return reply(request, backend.runs())


@router.get("/compared-runs", response_model=ComparedRuns)
def compare_runs(
    request: Request,
    backend: Asked,
    run: Annotated[list[str], Query(min_length=2, max_length=32, description="Ids, the first to compare with.")],
) -> Response:
    """Several runs side by side: `kinship runs compare`."""
    return reply(request, backend.compare(run))


@router.get("/runs/{run}", response_model=ServedRun)
def show_run(request: Request, run: str, backend: Asked) -> Response:
    """One run at a glance."""
    return reply(request, backend.run(run))


@router.get("/runs/{run}/export", response_model=RunExport)
def export_run(request: Request, run: str, backend: Asked) -> Response:
    """All that it found: `kinship runs show --json`."""
    return reply(request, backend.export(run))


@router.get("/runs/{run}/lineage", response_model=RunLineage)
def trace_run(request: Request, run: str, backend: Asked) -> Response:
    """Its family tree: `kinship tree RUN --json`."""
    return reply(request, backend.lineage(run))


@router.get("/runs/{run}/failures", response_model=Failures)
def list_failures(request: Request, run: str, backend: Asked) -> Response:
    """What failed in it, with tracebacks: `kinship runs show --failures --json`."""
    return reply(request, backend.failures(run))
