"""The first page: runs, models and the queue."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from service.http.backend import Asked, Backend
from service.http.models import list_models
from service.http.pages.rendering import page
from service.http.pages.run import error_of, left, view_of

router = APIRouter()

ACTIVE = ("queued", "running", "pausing", "cancelling", "lost")


@router.get("/")
def show_home(backend: Asked) -> Response:
    """Runs with their states, models, the queue."""
    return page("home", "/", json="runs", **_content(backend))


@router.get("/home/live")
def show_live(backend: Asked) -> Response:
    """What of it changes, for a page that is open."""
    return page("home_live", "/", **_content(backend))


def _content(backend: Backend) -> dict[str, Any]:
    runs = sorted(backend.runs().runs, key=lambda run: (run.state not in {"running", "queued", "pausing"}, run.id))
    views = {run.id: view_of(backend, run.id) for run in runs}
    jobs = [job for job in backend.jobs.all().jobs if job.state in ACTIVE]
    return {
        "runs": runs,
        "errors": {id: error_of(view) for id, view in views.items()},
        "left": {run.id: left(run, views[run.id]) for run in runs},
        "jobs": jobs,
        "models": list_models(backend).models,
        "folder": backend.settings.folder,
    }
