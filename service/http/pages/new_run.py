"""A new run: a form of the run file's schema."""

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from kinship.errors import InvalidConfig, KinshipError
from search.config import RunConfig
from service.answers.plan import SearchPlan
from service.http import orders
from service.http.backend import Asked, Backend
from service.http.measuring import Chosen, known, measured
from service.http.pages import task_names
from service.http.pages.form import Section, errors_of, read, sections_of, task_lines, texts_of, told
from service.http.pages.rendering import page
from service.http.pages.run import name_of
from service.http.pages.typed import Form, Typed, every, go_to
from service.http.requests import PlanRequest, RunRequest
from service.http.searches import start_run, submit

router = APIRouter()

FIRST = ("base", "founders", "evaluate.tasks", "evaluate.task_path")  # fields that have a place of their own
EARLY = ("stop", "strategy", "merge")  # sections that most people look at
EXAMPLES = {"founders": "org/name\nfolder/model", "evaluate.tasks": "arc_easy\nhellaswag"}


@router.get("/new")
def show_form(
    backend: Asked,
    source: Annotated[str | None, Query(alias="from")] = None,
    base: str = "",
    model: Chosen = None,
) -> Response:
    """The form: empty, of an existing run, or with the models that a matrix was about."""
    texts: dict[str, str] = {"base": base}
    if source is not None:
        with backend.ledger(source) as ledger:
            facts = ledger.facts()
        if facts:
            here = set(known(backend))
            model = [path for name, path in facts.config.founders.items() if path in here and Path(path).name == name]
            others = {name: path for name, path in facts.config.founders.items() if path not in model}
            texts = texts_of(RunConfig, facts.config.model_copy(update={"founders": others}))
            if not others:
                del texts["founders"]
    name = f"{name_of(source)}-again" if source else ""
    return _form(backend, texts, chosen=model or [], name=name)


@router.post("/new/check")
def check_form(form: Form) -> Response:
    """What is wrong so far, by field: for a page that tells it while people write."""
    return JSONResponse({"errors": _checked(form)[1]})


@router.post("/new/plan")
def show_plan(backend: Asked, form: Form) -> Response:
    """What the run would do and take, before it is started: a job, whose end the page waits for."""
    config, errors = _checked(form)
    if config is None:
        return page("new_plan", "/new", job=None, plan=None, errors=errors)
    job = submit(backend, orders.plan(PlanRequest(config=config, timed=True), backend.settings))
    return page("new_plan", "/new", job=job, plan=None, errors={})


@router.get("/new/plan/{job}")
def follow_plan(backend: Asked, job: int) -> Response:
    """The plan once it is there."""
    found = backend.jobs.get(job)
    plan = SearchPlan.model_validate_json(backend.jobs.result(job)) if found.state == "done" else None
    return page("new_plan", "/new", job=found, plan=plan, errors={})


@router.post("/new/kinship")
def show_kinship(backend: Asked, form: Form) -> Response:
    """Kinship of the founders named so far, where that takes seconds."""
    content, _ = _content(form)
    founders, base = content.get("founders", {}), content.get("base")
    if len(founders) < 2 or not base:
        raise InvalidConfig("There is nothing to compare yet.", hint="Name a base and two founders first.")
    references = [str(reference) for reference in founders.values()]
    plan, matrix = measured(backend, str(base), references)
    return page("new_kinship", "/new", plan=plan, matrix=matrix, names=list(founders))


@router.get("/new/tasks")
def find_tasks(
    backend: Asked, find: str = "", task_path: Annotated[str, Query(alias="evaluate.task_path")] = ""
) -> Response:
    """Tasks by part of their name."""
    own = (backend.settings.folder / task_path).resolve() if task_path else None
    inside = own is not None and own.is_relative_to(backend.settings.folder.resolve()) and own.is_dir()
    return page("new_tasks", "/new", find=find, names=task_names.search(find, own if inside else None))


@router.post("/new")
def start(backend: Asked, form: Form) -> Response:
    """Start it and go to its page; else the same form, with what is wrong."""
    config, errors = _checked(form)
    texts = dict(form)
    name = texts.get("name", "").strip()
    if config is not None:
        try:
            wanted = RunRequest.model_validate({"name": name or _free_name(backend), "config": config})
            job = start_run(backend, wanted)
            return go_to("runs", backend.workspace.id_of(backend.settings.folder / str(job.run)))
        except ValidationError:
            errors = {"name": "Expected up to 100 letters, digits, points, hyphens and low lines."}
        except KinshipError as error:
            errors = {"": told(error)}
    return _form(backend, texts, chosen=every(form, "founder"), name=name, errors=errors, status=422)


def _free_name(backend: Backend) -> str:
    """One that nothing in the workspace has."""
    numbers = (f"run-{number}" for number in count(1))
    return next(name for name in numbers if not (backend.settings.folder / name).exists())


def _form(
    backend: Backend,
    texts: Mapping[str, str],
    *,
    chosen: Sequence[str],
    name: str,
    errors: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    whole, *sections = sections_of(RunConfig)
    sections.sort(key=lambda section: EARLY.index(section.path) if section.path in EARLY else len(EARLY))
    sections.append(whole)
    fields = {field.path: field for section in sections for field in section.fields}
    return page(
        "new", "/new", status=status, texts=texts, errors=errors or {}, chosen=chosen, name=name, fields=fields,
        sections=sections, first=FIRST, examples=EXAMPLES, models=known(backend),
        opened={section.path for section in sections if _is_told(section, texts) or _is_told(section, errors or {})},
    )  # fmt: skip


def _is_told(section: Section, texts: Mapping[str, str]) -> bool:
    """Whether any of it, but what has a place of its own, is among ``texts``."""
    paths = [section.path or "-", *(field.path for field in section.fields if field.path not in FIRST)]
    return any(texts.get(path) for path in paths)


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
    task_lines(content.get("evaluate", {}))
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
