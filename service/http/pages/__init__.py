"""The web pages: HTML of the same answers that the API gives as JSON. `install` adds them to an application."""

from fastapi import FastAPI

from service.http.pages import (
    compare,
    failures,
    home,
    individual,
    jobs,
    kinship,
    merge,
    methods,
    model,
    new_run,
    run,
    scores,
    trees,
)
from service.http.pages.assets import Assets
from service.http.pages.compression import Compression

ROOMS = (home, new_run, run, individual, compare, methods, kinship, merge, trees, model, scores, jobs)


def install(app: FastAPI) -> None:
    """Add pages, their scripts and styles, failures told as pages to whoever asks for HTML, and compression."""
    for room in ROOMS:
        app.include_router(room.router, include_in_schema=False)
    app.mount("/static", Assets(), name="static")
    failures.install(app)
    app.add_middleware(Compression)
