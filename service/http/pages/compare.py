"""Runs side by side."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import Response

from service.http.backend import Asked, Backend
from service.http.pages.rendering import page
from service.http.pages.run import name_of

router = APIRouter()

MOST = 32


@router.get("/compare")
def show_compare(backend: Asked, run: Annotated[list[str] | None, Query(max_length=MOST)] = None) -> Response:
    """Any runs: curves, costs, and differences of the winners, as `kinship runs compare` tells them."""
    chosen = list(dict.fromkeys(run or []))
    compared = backend.compare(chosen).runs if len(chosen) > 1 else []
    runs = [one.id for one in backend.runs().runs if one.summary is not None]
    asked = urlencode({"run": chosen}, doseq=True)
    return page(
        "compare", "/compare", json=f"compared-runs?{asked}" if compared else None,
        chosen=chosen, runs=runs, compared=list(zip(chosen, compared, strict=False)),
        curves=[{"run": id, "name": name_of(id), "steps": curve_of(backend, id)} for id in chosen] if compared else [],
        name_of=name_of,
    )  # fmt: skip


def curve_of(backend: Backend, run: str) -> list[list[Any]]:
    """Whenever the best changed: after how many offspring, who it is, its score and standard error."""
    steps: list[list[Any]] = []
    count = 0
    for record in backend.view(run).records:
        count += record.generation > 0
        value = record.fitness
        if record.ranks and value is not None and (not steps or value > steps[-1][2]):
            steps.append([count, record.id, value, record.scores["search"].stderr])
    return [*steps, [count, *steps[-1][1:]]] if steps else []
