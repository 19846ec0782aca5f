"""Jobs: the queue, what runs, what came of it."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request
from starlette.responses import Response

from service.answers.jobs import Job, JobKind, JobLog, Jobs, JobState
from service.answers.results import JobResult
from service.http.backend import Asked
from service.http.errors import documented
from service.http.replies import reply, reply_text
from service.http.requests import MoveRequest, example
from service.jobs.board import LATEST

router = APIRouter(tags=["jobs"], responses=documented(404, 409, 422))
Id = Annotated[int, Path(ge=1, le=2**31 - 1)]
EXAMPLES: dict[str, Any] = {
    "of advise": {
        "schema": "kinship.advice/2", "metric": "pcc", "base": "family/base", "order": "kinship",
        "evidence": "What the order is worth.",
        "pairs": [
            {"pair": ["family/add-only", "family/max-add"], "kinship": 0.41, "relation": "related", "reason": "..."},
        ],
    },
    "of merge": {
        "schema": "kinship.merge/1", "out": "jobs/7/attempt-1/both",
        "recipe": {"merge_method": "linear", "models": [{"model": "family/add-only", "parameters": {"weight": 1}}]},
    },
}  # fmt: skip
RESULT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"examples": {name: {"value": one} for name, one in EXAMPLES.items()}}}}
}


@router.get("/jobs", response_model=Jobs)
def list_jobs(
    request: Request,
    backend: Asked,
    state: JobState | None = None,
    kind: JobKind | None = None,
    run: Annotated[str | None, Query(description="Its folder in the workspace.")] = None,
    after: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="`next` of the page before.")] = None,
    most: Annotated[int, Query(ge=1, le=LATEST)] = LATEST,
) -> Response:
    """Those that wait, in their order, then the others, the latest first; filtered, from a cursor on."""
    return reply(request, backend.jobs.all(after, most, state=state, kind=kind, run=run))


@router.get("/jobs/{job}", response_model=Job)
def show_job(request: Request, job: Id, backend: Asked) -> Response:
    """One job."""
    return reply(request, backend.jobs.get(job))


@router.get("/jobs/{job}/log", response_model=JobLog)
def read_log(request: Request, job: Id, backend: Asked, after: Annotated[int, Query(ge=0, le=2**53)] = 0) -> Response:
    """Its log from a byte on; `next` is where to go on."""
    return reply(request, backend.jobs.log(job, after))


@router.get("/jobs/{job}/result", response_model=JobResult, responses=RESULT)
def show_result(request: Request, job: Id, backend: Asked) -> Response:
    """What its command printed: the answer that `--json` prints, or 409 while there is none."""
    return reply_text(request, backend.jobs.result(job))


@router.post("/jobs/{job}/cancel", response_model=Job)
def cancel_job(request: Request, job: Id, backend: Asked) -> Response:
    """End it: at once where it waits, else as soon as its process does."""
    return reply(request, backend.jobs.cancel(job))


@router.post("/jobs/{job}/pause", response_model=Job)
def pause_job(request: Request, job: Id, backend: Asked) -> Response:
    """Have a search keep what it has, and stop."""
    return reply(request, backend.jobs.pause(job))


@router.post("/jobs/{job}/move", response_model=Jobs)
def move_job(
    request: Request, job: Id, body: Annotated[MoveRequest, Body(**example(before=3))], backend: Asked
) -> Response:
    """Put it before another one that waits, or last."""
    return reply(request, backend.jobs.move(job, body.before))


@router.delete("/jobs/{job}", status_code=204)
def remove_job(job: Id, backend: Asked) -> None:
    """Forget one that is over, with its files."""
    backend.jobs.remove(job)
