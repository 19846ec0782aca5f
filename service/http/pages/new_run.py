"""A new run: a form of the run file's schema."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote

from fastapi import APIRouter, Depends, Query, Request
from pydantic import ValidationError
from starlette.responses import JSONResponse, RedirectResponse, Response

from kinship.errors import KinshipError, ReferenceNotFound
from search.config import RunConfig
from search.ledger.ledger import Ledger
from service.http.backend import Asked, Backend
from service.http.pages import task_names
from service.http.pages.form import errors_of, read, sections_of, texts_of
from service.http.pages.rendering import page
from service.http.pages.run import name_of

router = APIRouter()

FIRST = ("base", "founders", "evaluate.tasks", "evaluate.task_path")  # fields that have a place of their own
Typed = Sequence[tuple[str, str]]


async def typed(request: Request) -> Typed:
    """What the form sent: names and values in order, as text."""
    return parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)


Form = Annotated[Typed, Depends(typed)]


@router.get("/new")
def show_form(
    backend: Asked,
    source: Annotated[str | None, Query(alias="from")] = None,
    base: str = "",
    model: Annotated[list[str] | None, Query(max_length=200)] = None,
) -> Response:
    """The form: empty, of an existing run, or with the models that a matrix was about."""
    texts: dict[str, str] = {"base": base}
    if source is not None:
        with Ledger(backend.workspace.run(source).location) as ledger:
            facts = ledger.facts()
        texts = texts_of(RunConfig, facts.config) if facts else texts
    name = f"{name_of(source)}-again" if source else ""
    return _form(backend, texts, chosen=model or [], name=name)


@router.post("/new/check")
def check_form(form: Form) -> Response:
    """What is wrong so far, by field: for a page that tells it while people write."""
    return JSONResponse({"errors": _checked(form)[1]})


@router.post("/new/plan")
def show_plan(backend: Asked, form: Form) -> Response:
    """What the run would do and take, before it is started."""
    config, errors = _checked(form)
    if config is None:
        return page("new_plan", "/new", plan=None, errors=errors)
    return page("new_plan", "/new", plan=backend.plan_run(config), errors={})


@router.post("/new/kinship")
def show_kinship(backend: Asked, form: Form) -> Response:
    """Kinship of the founders named so far, where that takes seconds."""
    from service.answers.matrix import measure_matrix, plan_matrix

    content, _ = _content(form)
    models, base = list(content.get("founders") or {}), content.get("base")
    references = [str(reference) for reference in (content.get("founders") or {}).values()]
    if len(references) < 2 or not base:
        raise ReferenceNotFound("Name a base and two founders first.")
    places = [backend.reference(text) for text in [str(base), *references]]
    plan = plan_matrix(places[1:], places[0])
    matrix = None if plan.seconds > MOST_SECONDS or plan.bytes_to_download else measure_matrix(places[1:], places[0])
    return page("new_kinship", "/new", plan=plan, matrix=matrix, names=models)


MOST_SECONDS = 20.0  # of a kinship preview


@router.get("/new/tasks")
def find_tasks(backend: Asked, find: str = "", task_path: Annotated[str, Query(alias="evaluate.task_path")] = "") -> Response:
    """Tasks by part of their name."""
    own = (backend.settings.folder / task_path).resolve() if task_path else None
    inside = own is not None and own.is_relative_to(backend.settings.folder.resolve()) and own.is_dir()
    return page("new_tasks", "/new", find=find, names=task_names.search(find, own if inside else None))


@router.post("/new")
def start(backend: Asked, form: Form) -> Response:
    """Start it and go to its page; else the same form, with what is wrong."""
    config, errors = _checked(form)
    texts, name = dict(form), dict(form).get("name", "").strip()
    chosen = [value for key, value in form if key == "founder"]
    if config is not None:
        try:
            started = backend.start_run(config, name)
            return RedirectResponse(f"/runs/{quote(started.id, safe='')}", 303)
        except KinshipError as error:
            errors = {"": f"{error.message} {error.hint or ''}".strip()}
    return _form(backend, texts, chosen=chosen, name=name, errors=errors, status=422)


def _form(
    backend: Backend,
    texts: Mapping[str, str],
    *,
    chosen: Sequence[str],
    name: str,
    errors: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    sections = list(sections_of(RunConfig))
    fields = {field.path: field for section in sections for field in section.fields}
    return page(
        "new", "/new", status=status, texts=texts, errors=errors or {}, chosen=chosen, name=name, fields=fields,
        sections=sections, first=FIRST, models=[backend.workspace.relative(path) for path in backend.workspace.models()],
        settled={section.path for section in sections if any(texts.get(field.path) for field in section.fields)},
    )  # fmt: skip


def _content(form: Typed) -> tuple[dict[str, Any], dict[str, str]]:
    """Plain data of the run file that the form stands for: ticked founders beside the typed ones."""
    content, errors = read(RunConfig, dict(form))
    founders = _named(content.pop("founders", None))
    for reference in (value for key, value in form if key == "founder"):
        if reference not in founders.values():
            plain = Path(reference).name
            founders[plain if plain not in founders else reference.replace("/", "-")] = reference
    if founders:
        content["founders"] = founders
    evaluate = content.get("evaluate", {})
    if isinstance(evaluate.get("tasks"), str):  # plain lines
        evaluate["tasks"] = evaluate["tasks"].replace(",", " ").split()
    return content, errors


def _named(typed: Any) -> dict[str, Any]:
    """Founders as people write them: NAME: REFERENCE lines, a list, or plain lines."""
    if isinstance(typed, dict):
        return {str(name): reference for name, reference in typed.items()}
    lines = typed if isinstance(typed, list) else str(typed).split() if typed else []
    return {Path(str(line)).name: line for line in lines}


def _checked(form: Typed) -> tuple[RunConfig | None, dict[str, str]]:
    content, errors = _content(form)
    try:
        config = RunConfig.model_validate(content)
    except ValidationError as error:
        return None, {**errors_of(RunConfig, error), **errors}
    return (None, errors) if errors else (config, {})
