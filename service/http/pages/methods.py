"""Merge methods compared: the comparisons of the workspace, one of them, and a form for another."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from fastapi import APIRouter, Query
from starlette.responses import Response

from kinship.errors import InvalidConfig, KinshipError
from kinship.safe_yaml import InvalidYaml, load_yaml
from kinship.validation import checked
from service.http import comparisons
from service.http.backend import Asked, Backend
from service.http.measuring import Chosen, named
from service.http.orders import PLAN
from service.http.pages.form import told
from service.http.pages.rendering import page
from service.http.pages.typed import Form, go_to
from service.http.requests import MethodsRequest
from service.pages.comparison_figures import NAMES, figures

router = APIRouter()

TITLES = {
    "scatter": ("Held-in against unseen", "One dot a row, with its intervals of 95 %."),
    "grid": ("Skills and domains", "Framed: held-in cells."),
    "cells": ("Scores by cell", "Left of the line: held-in cells."),
    "cost": ("Scores by cost", "Untuned; seconds of one merge, statistics included."),
    "sensitivity": ("Scores by parameter", "Under the first seed; dashed: unseen."),
    "number": ("Scores by number of models", "Means and standard errors over random orders."),
}
MOST_NAMED = 12  # dots of a figure: more names would lie on each other, and are told by a pointer and the table
FIRST_METHODS = ["linear", "task_arithmetic", "ties"]


@router.get("/methods")
def show_comparisons(backend: Asked) -> Response:
    """Every comparison of the workspace, those that are going on, too."""
    return page("methods", "/methods", json="comparisons", places=comparisons.comparisons(backend).comparisons)


@router.get("/methods/{id}")
def show_comparison(id: str, backend: Asked) -> Response:
    """What one of them found; before its end, how far it is."""
    place = comparisons.comparison(backend, id)
    answer = place.result() if place.done else None
    charts = {name: _plain(figure) for name, figure in figures(answer).items()} if answer else {}
    address = f"comparisons/{quote(id, safe='')}"
    return page(
        "method_comparison", "/methods", json=f"{address}/result" if answer else address, name=place.name,
        told=place.told(), job=place.job, address=f"/api/v1/{address}", answer=answer, charts=charts, titles=TITLES,
        groups=NAMES,
    )  # fmt: skip


@router.get("/new/methods")
def show_form(
    backend: Asked,
    source: str | None = Query(None, alias="from"),
    base: str = "",
    model: Chosen = None,
) -> Response:
    """The form: with a plan for these models, or that of an earlier comparison."""
    if source is None:
        return _form(_plan_for(base, model or []), "")
    plan, name = _plan_of(backend, comparisons.comparison(backend, source))
    return _form(plan, name, extend=True)


@router.post("/new/methods")
def start_comparison(backend: Asked, form: Form) -> Response:
    """Start it as a job; else the same form, with what is wrong."""
    given = dict(form)
    text, name, extend = given.get("plan", ""), given.get("name", "").strip(), "extend" in given
    try:
        content = {"name": name, "plan": load_yaml(text), "extend": extend}
        job = comparisons.start(backend, checked(MethodsRequest, content, "the form"))
    except InvalidYaml as error:
        return _form(text, name, f"This is no YAML: {error}.", extend=extend)
    except KinshipError as error:
        return _form(text, name, told(error), extend=extend)
    return go_to("methods", backend.workspace.id_of(backend.settings.folder / str(job.run)))


def _form(plan: str, name: str, error: str = "", *, extend: bool = False) -> Response:
    status = 422 if error else 200
    return page("new_methods", "/methods", status=status, plan=plan, name=name, error=error, extend=extend)


def _plan_for(base: str, models: Sequence[str]) -> str:
    """A plan to be filled in: a cell for each model, whose task is to be named."""
    names = {Path(model).name: model for model in models} or {"maths": "MODEL", "french": "MODEL"}
    plan = {
        "base": base or "BASE",
        "cells": {name: {"task": "TASK", "model": model} for name, model in names.items()},
        "evaluate": {"tasks": ["TASK"]},
        "methods": FIRST_METHODS,
    }
    return yaml.safe_dump(plan, sort_keys=False)


def _plan_of(backend: Backend, place: comparisons.ComparisonPlace) -> tuple[str, str]:
    """The plan of a comparison, as its latest job or its result has it, and its name.

    Raises `InvalidConfig` where neither tells.
    """
    file = backend.jobs.place(place.job.id) / PLAN if place.job else None
    if file is not None and file.is_file():
        return file.read_text(encoding="utf-8"), place.name
    if not place.done:
        raise InvalidConfig(f"Nothing here tells the plan of {place.id}.", hint="It was not started here: write it.")
    return yaml.safe_dump(named(backend, place.result().plan), sort_keys=False), place.name


def _plain(figure: Any) -> dict[str, Any]:
    """Traces and axes, without the looks that the page has itself."""
    content = json.loads(figure.to_json())
    kept = ("xaxis", "yaxis", "shapes", "height", "annotations")  # a panel's axes have its number
    layout = {name: part for name, part in content["layout"].items() if name.startswith(kept)}
    traces = content["data"]
    if sum(len(trace.get("text") or ()) for trace in traces) > MOST_NAMED:
        traces = [trace | {"mode": "markers"} if "text" in trace.get("mode", "") else trace for trace in traces]
    return {"traces": traces, "layout": layout}
