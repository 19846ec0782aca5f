"""The page of a run: live while it goes on."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from search.ledger.location import BEST
from service.answers.gains import Correlation, gains_of
from service.answers.served import ServedRun
from service.http.artefacts import list_files, run_folder
from service.http.backend import Asked, Backend
from service.http.looking import RunView
from service.http.pages.figures import COLUMNS, front_of, kinship_of, rows_of, settled
from service.http.pages.rendering import by_folder, duration, page
from service.http.replies import reply_json

router = APIRouter()

RECENT = 200  # events that the page begins with


@router.get("/runs/{run}")
def show_run(run: str, backend: Asked) -> Response:
    """The page as it is first seen: figures and frames; charts follow."""
    view = view_of(backend, run)
    content = live(backend, run)
    after = max(0, backend.last_event(run) - RECENT) if view.records else 0
    return page(
        "run", "/", json=f"runs/{quote(run)}",
        run=run, name=content["name"], live=content, tasks=_tasks(view), after=after, legend=view.legend,
    )  # fmt: skip


@router.get("/runs/{run}/live")
def show_live(request: Request, run: str, backend: Asked, first: Annotated[int, Query(ge=0, le=10**9)] = 0) -> Response:
    """What changed: the figures, and the individuals from the place ``first`` on."""
    view = view_of(backend, run)
    rows = rows_of(view, min(first, len(view.records)))
    content = live(backend, run) | {
        "columns": COLUMNS,
        "first": first,
        "rows": rows,
        "settled": settled(view.records),
        "gain": Correlation.of(gains_of(view.records)).content(),
        "tasks": _tasks(view),
    }
    return reply_json(request, content)


@router.get("/runs/{run}/related")
def show_related(request: Request, run: str, backend: Asked) -> Response:
    """What takes longer than figures do: kinship of the individuals, and the Pareto front."""
    view = view_of(backend, run)
    if not view.records:
        return reply_json(request, {"metric": "", "ids": [], "values": [], "top": [], "front": []})
    with backend.ledger(run) as ledger:
        return reply_json(request, kinship_of(ledger, view) | {"front": front_of(view)})


@router.get("/runs/{run}/verdict")
def show_verdict(run: str, backend: Asked) -> Response:
    """What the held-out documents say, with the comparisons behind it."""
    return page("run_verdict", "/", run=run, export=backend.export(run))


@router.get("/runs/{run}/files")
def show_files(run: str, backend: Asked) -> Response:
    """What can be taken away."""
    place = backend.place(run, backend.latest().get(run)).folder
    folder = run_folder(backend, run) if place is not None and place.is_dir() else None
    files = by_folder(list_files(folder).files) if folder else []
    summary = view_of(backend, run).summary
    best = summary.best_offspring if summary and not any(name == BEST for name, _ in files) else None
    return page("files", "/", files=files, address=f"/api/v1/runs/{quote(run, safe='')}", best=best)


@router.get("/runs/{run}/failures")
def show_failures(run: str, backend: Asked) -> Response:
    """What failed, with tracebacks."""
    failures = backend.failures(run).failures if view_of(backend, run).records else []
    return page("run_failures", "/", run=run, failures=failures)


def live(backend: Backend, run: str) -> dict[str, Any]:
    """The figures of a run."""
    served, view = backend.run(run), view_of(backend, run)
    records = view.records
    summary = served.summary
    return {
        "name": name_of(run),
        "state": served.state,
        "error": served.error,
        "best": summary.best if summary else None,
        "value": summary.score if summary else None,
        "stderr": error_of(view),
        "offspring": summary.offspring if summary else 0,
        "budget": served.evaluations,
        "failed": summary.failed if summary else 0,
        "generation": max((record.generation for record in records), default=0),
        "waiting": sum(not record.done for record in records),
        "hours": summary.hours if summary else 0.0,
        "left": left(served, view),
        "stopped": summary.stopped if summary else None,
        "strategy": summary.strategy if summary else "",
        "job": served.job,
    }


def error_of(view: RunView) -> float | None:
    """The standard error of the best score."""
    best = view.summary.best if view.summary else None
    return next((record.scores["search"].stderr for record in view.records if record.id == best), None)


def left(run: ServedRun, view: RunView) -> str:
    """About how long it will take, or what is done once the search itself has ended; empty where nobody can say."""
    if run.state != "running":
        return ""
    if run.summary is not None and run.summary.stopped is not None:
        return "writing results"
    if _last(view, "ended") > _last(view, "extended"):
        return "scoring held-out documents"
    return duration(run.seconds_left)


def _last(view: RunView, event: str) -> int:
    return max((place for place, name in enumerate(view.diary) if name == event), default=-1)


def view_of(backend: Backend, run: str) -> RunView:
    """What is on record of a run: nothing while its job waits. Raises `NotFound`."""
    place = backend.place(run, backend.latest().get(run))
    return backend.views.of(place) if place.is_there else RunView()


def name_of(run: str) -> str:
    """The folder that an id stands for.

    >>> name_of("tries~1first~02")
    'tries/first~2'
    """
    return run.replace("~1", "/").replace("~0", "~")


def _tasks(view: RunView) -> list[str]:
    scored = next((record for record in view.records if "search" in record.scores), None)
    return list(scored.scores["search"].tasks) if scored else []
