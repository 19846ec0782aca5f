"""What takes a while and is no search: each is a job, whose result is the answer that the command prints."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from starlette.responses import Response

from service.answers.jobs import Job
from service.answers.matrix import Matrix
from service.answers.tree import FamilyTree
from service.http import orders
from service.http.backend import Asked
from service.http.errors import documented
from service.http.idempotency import Once, accepted
from service.http.measuring import Chosen, Metric, measured, recorded
from service.http.replies import reply
from service.http.requests import (
    AdviceRequest,
    MatrixRequest,
    MergeRequest,
    ScoreRequest,
    TreeRequest,
    example,
)
from service.http.searches import submit
from service.jobs.errors import Conflict

router = APIRouter(responses=documented(403, 409, 422, 429))

MODELS: dict[str, Any] = {"models": ["family/add-only", "family/max-add"], "base": "family/base"}
RECIPE = {
    "merge_method": "linear",
    "models": [{"model": name, "parameters": {"weight": 1}} for name in MODELS["models"]],
}


@router.post("/kinship/matrices", status_code=202, response_model=Job, tags=["kinship"])
def measure_matrix(body: Annotated[MatrixRequest, Body(**example(**MODELS))], backend: Asked, once: Once) -> Response:
    """Kinship of models to each other: a `Matrix`, or with `dry_run` a `MatrixPlan`."""
    return accepted(submit(backend, orders.matrix(body, backend.settings), *once))


@router.get("/kinship/matrices", response_model=Matrix, tags=["kinship"])
def read_matrix(
    request: Request,
    backend: Asked,
    base: Annotated[str, Query(min_length=1, max_length=4096)],
    model: Chosen = None,
    more: Annotated[str, Query(description="Further models, separated by blanks.")] = "",
    metric: Metric = "pcc",
) -> Response:
    """The same at once, where it takes no more than 20 seconds and no download, with layers apart; else 409."""
    plan, matrix = measured(backend, base, list(dict.fromkeys([*(model or []), *more.split()])), metric, "layer")
    if matrix is None:
        message = f"That takes some {plan.seconds:.0f} seconds, and downloads {plan.bytes_to_download:,} bytes."
        raise Conflict(message, hint="POST it: a job measures it.")
    return reply(request, matrix)


@router.post("/kinship/advice", status_code=202, response_model=Job, tags=["kinship"])
def advise_pairs(body: Annotated[AdviceRequest, Body(**example(**MODELS))], backend: Asked, once: Once) -> Response:
    """Which pairs to merge: an `Advice`."""
    return accepted(submit(backend, orders.advise(body, backend.settings), *once))


@router.post("/trees", status_code=202, response_model=Job, tags=["trees"])
def trace_models(
    body: Annotated[TreeRequest, Body(**example(kind="recovered", **MODELS))], backend: Asked, once: Once
) -> Response:
    """Descent of models: a `FamilyTree`, a `RecoveredHeritage` or a `Dendrogram`."""
    return accepted(submit(backend, orders.tree(body, backend.settings), *once))


@router.get("/trees", response_model=FamilyTree, tags=["trees"])
def read_tree(
    request: Request, backend: Asked, model: Chosen = None, base: Annotated[str, Query(max_length=4096)] = ""
) -> Response:
    """Descent as the models' own files tell it, at once."""
    return reply(request, recorded(backend, base, model or []))


@router.post("/merges", status_code=202, response_model=Job, tags=["merges"])
def merge_models(
    body: Annotated[MergeRequest, Body(**example(name="both", recipe=RECIPE))], backend: Asked, once: Once
) -> Response:
    """Merge models into a folder of the job: a `Merged`, or with `dry_run` a `MergePlan`."""
    return accepted(submit(backend, orders.merge(body, backend.settings), *once))


@router.post("/scores", status_code=202, response_model=Job, tags=["scores"])
def score_models(
    body: Annotated[
        ScoreRequest,
        Body(**example(models=MODELS["models"], evaluate={"tasks": ["demo_add"], "task_path": "family/tasks"})),
    ],
    backend: Asked,
    once: Once,
) -> Response:
    """Score models on tasks: `Scores`."""
    return accepted(submit(backend, orders.score(body, backend.settings), *once))
