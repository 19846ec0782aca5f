"""The first page: runs, models and the queue."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from search.ledger.records import ranked
from service.http.backend import Asked, Backend
from service.http.pages.models import known
from service.http.pages.rendering import page

router = APIRouter()

ACTIVE = ("queued", "running", "pausing", "cancelling", "lost")


@router.get("/")
def show_home(backend: Asked) -> Response:
    """Runs with their states, models, the queue."""
    return page("home", "/", **_content(backend))


@router.get("/home/live")
def show_live(backend: Asked) -> Response:
    """What of it changes, for a page that is open."""
    return page("home_live", "/", **_content(backend))


def _content(backend: Backend) -> dict[str, Any]:
    runs = sorted(backend.runs().runs, key=lambda run: (run.state not in {"running", "queued", "pausing"}, run.id))
    errors = {run.id: _error(backend, run.id) for run in runs}
    jobs = [job for job in backend.jobs.all().jobs if job.state in ACTIVE]
    return {"runs": runs, "errors": errors, "jobs": jobs, "models": known(backend), "folder": backend.settings.folder}


def _error(backend: Backend, run: str) -> float | None:
    """The standard error of the best score."""
    best = next(iter(ranked(backend.view(run).records)), None)
    return best.scores["search"].stderr if best else None
