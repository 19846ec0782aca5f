"""Jobs: the queue, what runs, what came of it."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Request
from starlette.responses import Response

from service.answers.jobs import Job, JobLog, Jobs
from service.http.backend import Asked
from service.http.errors import documented
from service.http.replies import reply
from service.http.requests import MoveRequest

router = APIRouter(tags=["jobs"], responses=documented(404, 409, 422))
Id = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.get("/jobs", response_model=Jobs)
def list_jobs(request: Request, backend: Asked) -> Response:
    """Those that wait, in their order, then the others, the latest first."""
    return reply(request, backend.jobs.all())


@router.get("/jobs/{job}", response_model=Job)
def show_job(request: Request, job: Id, backend: Asked) -> Response:
    """One job."""
    return reply(request, backend.jobs.get(job))


@router.get("/jobs/{job}/log", response_model=JobLog)
def read_log(request: Request, job: Id, backend: Asked, after: Annotated[int, Query(ge=0, le=2**53)] = 0) -> Response:
    """Its log from a byte on; `next` is where to go on."""
    return reply(request, backend.jobs.log(job, after))


@router.get(
    "/jobs/{job}/result",
    response_class=Response,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
def show_result(job: Id, backend: Asked) -> Response:
    """What its command printed: the answer that `--json` prints, or 409 while there is none."""
    return Response(backend.jobs.result(job), media_type="application/json")


@router.post("/jobs/{job}/cancel", response_model=Job)
def cancel_job(request: Request, job: Id, backend: Asked) -> Response:
    """End it: at once where it waits, else as soon as its process does."""
    return reply(request, backend.jobs.cancel(job))


@router.post("/jobs/{job}/pause", response_model=Job)
def pause_job(request: Request, job: Id, backend: Asked) -> Response:
    """Have a search keep what it has, and stop."""
    return reply(request, backend.jobs.pause(job))


@router.post("/jobs/{job}/move", response_model=Jobs)
def move_job(request: Request, job: Id, body: Annotated[MoveRequest, Body()], backend: Asked) -> Response:
    """Put it before another one that waits, or last."""
    return reply(request, backend.jobs.move(job, body.before))


@router.delete("/jobs/{job}", status_code=204)
def remove_job(job: Id, backend: Asked) -> None:
    """Forget one that is over, with its files."""
    backend.jobs.remove(job)
