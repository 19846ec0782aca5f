"""Scores of models: a form that starts the job, and what it found."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from kinship.errors import KinshipError
from service.answers.error import Error
from service.answers.score import Scores
from service.http import orders
from service.http.backend import Asked, Backend
from service.http.measuring import Chosen, known
from service.http.pages.form import errors_of, read, sections_of, task_lines, told
from service.http.pages.rendering import page
from service.http.pages.typed import Form, Typed, every, go_to
from service.http.requests import ScoreRequest
from service.http.searches import submit

router = APIRouter()

FIRST = ("models", "evaluate.tasks", "evaluate.task_path")  # fields that have a place of their own
EXAMPLES = {"models": "org/name\nfolder/model", "evaluate.tasks": "arc_easy\nhellaswag"}


@router.get("/scores")
def show_scores(backend: Asked, model: Chosen = None, job: int | None = None) -> Response:
    """The form, with these models ticked; or what a job found."""
    if job is None:
        return _form(backend, {}, chosen=model or [])
    try:
        found, error = Scores.model_validate_json(backend.jobs.result(job)), None
    except ValidationError as problem:
        found, error = None, Error(code="not_found", message=f"Job {job} has no scores.", hint=str(problem)[:100])
    models = [one.model for one in found.models] if found else []
    return page("scores", "/models", json=f"jobs/{job}/result", job=job, found=found, error=error, models=models)


@router.post("/scores/check")
def check_form(form: Form) -> Response:
    """What is wrong so far, by field: for a page that tells it while people write."""
    return JSONResponse({"errors": _checked(form)[1]})


@router.post("/scores")
def start(backend: Asked, form: Form) -> Response:
    """Start it as a job; else the same form, with what is wrong."""
    request, errors = _checked(form)
    if request is not None:
        try:
            return go_to("jobs", submit(backend, orders.score(request, backend.settings)).id)
        except KinshipError as error:
            errors = {"": told(error)}
    return _form(backend, dict(form), chosen=every(form, "model"), errors=errors)


def _form(
    backend: Backend, texts: Mapping[str, str], *, chosen: Sequence[str], errors: Mapping[str, str] | None = None
) -> Response:
    whole, evaluate = sections_of(ScoreRequest)
    sections = [replace(evaluate, title="more", help="metric, examples, how many documents, device, chat template")]
    fields = {field.path: field for section in [whole, *sections] for field in section.fields}
    return page(
        "new_scores", "/models", status=422 if errors else 200, texts=texts, errors=errors or {}, chosen=chosen,
        fields=fields, sections=sections, first=FIRST, examples=EXAMPLES, models=known(backend),
        opened={"evaluate"} if any(path not in FIRST for path in errors or {}) else set(),
    )  # fmt: skip


def _checked(form: Typed) -> tuple[ScoreRequest | None, dict[str, str]]:
    content: dict[str, Any]
    content, errors = read(ScoreRequest, dict(form))
    task_lines(content.setdefault("evaluate", {}))
    typed = content.pop("models", [])
    named = typed if isinstance(typed, list) else str(typed).split()
    models = list(dict.fromkeys([*every(form, "model"), *map(str, named)]))
    try:
        request = ScoreRequest.model_validate(content | ({"models": models} if models else {}))
    except ValidationError as error:
        return None, {**errors_of(ScoreRequest, error), **errors}
    return (None, errors) if errors else (request, {})
