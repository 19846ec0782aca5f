"""The first page: runs, models and the queue."""

from fastapi import APIRouter
from starlette.responses import Response

from service.http.backend import Asked, Backend
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


def _content(backend: Backend) -> dict[str, object]:
    runs = sorted(backend.runs().runs, key=lambda run: (run.state not in {"running", "queued", "pausing"}, run.id))
    return {"runs": runs, "jobs": [job for job in backend.jobs.all().jobs if job.state in ACTIVE],
            "models": backend.models().models, "folder": backend.settings.folder}  # fmt: skip
