"""Merge methods compared: the comparisons of the workspace, and one of them. Runs are compared elsewhere."""

import json
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from service.http.backend import Asked
from service.http.comparisons import comparison, comparisons
from service.http.pages.rendering import page
from service.pages.method_comparison import NAMES, figures

router = APIRouter()

TITLES = {
    "scatter": ("Held-in against unseen", "One dot a row, with its intervals of 95 %."),
    "grid": ("Skills and domains", "Framed: held-in cells."),
    "cells": ("Scores by cell", "Left of the line: held-in cells."),
    "cost": ("Scores by cost", "Untuned; seconds of one merge, statistics included."),
    "sensitivity": ("Scores by parameter", "Under the first seed; dashed: unseen."),
    "number": ("Scores by number of models", "Means and standard errors over random orders."),
}


@router.get("/methods")
def show_comparisons(backend: Asked) -> Response:
    """Every comparison of the workspace, those that are going on, too."""
    return page("methods", "/methods", places=comparisons(backend.workspace))


@router.get("/methods/{id}")
def show_comparison(id: str, backend: Asked) -> Response:
    """What one of them found; before its end, how far it is."""
    place = comparison(backend.workspace, id)
    answer = place.answer
    charts = {name: _plain(figure) for name, figure in figures(answer).items()} if answer else {}
    return page("method_comparison", "/methods", place=place, answer=answer, charts=charts, titles=TITLES, groups=NAMES)


def _plain(figure: Any) -> dict[str, Any]:
    """Traces and axes, without the looks that the page has itself."""
    content = json.loads(figure.to_json())
    kept = ("xaxis", "yaxis", "shapes", "height", "annotations")  # a panel's axes have its number
    layout = {name: part for name, part in content["layout"].items() if name.startswith(kept)}
    return {"traces": content["data"], "layout": layout}
