"""The server as one object: `create_app(settings)`.

What whoever builds upon it may rely on:

* ``app.state.backend`` is a `Backend`, in a route ``backend: Asked`` (both of `service.http.backend`). Its methods
  take plain arguments, return the answers of `service.answers`, raise `KinshipError`, and block: call them in routes
  that are plain functions, which FastAPI runs in threads. `NotFound`, `Refused`, `Conflict` and `QueueFull`
  (`service.jobs.errors`) become 404, 403, 409 and 429, every other `KinshipError` 422. The routes under ``/api/v1``
  call the same methods, so a page and the API cannot disagree.
* The id of a run is the path of its folder in the workspace, ``/`` written ``~1`` and ``~`` as ``~0``; only ids of runs
  that were found are known, none is ever made into a path.
* ``backend.runs()``, ``run(id)``, ``individuals(id, ...)``, ``individual(id, individual)``, ``recipe(id, individual)``,
  ``export(id)``, ``lineage(id)``, ``failures(id)``, ``compare(ids)``, ``artefacts(id)``, ``events(id, after)``;
  ``backend.models()``; ``backend.jobs`` (a `service.jobs.board.Board`): ``all()``, ``get(id)``, ``log(id, after)``,
  ``submit(...)``, ``cancel(id)``, ``pause(id)``, ``move(id, before)``; ``backend.start_run(...)``, ``resume_run(id)``,
  ``extend_run(id, stop)``, ``plan_run(...)``.
* Live events: ``GET /api/v1/runs/{id}/stream`` (SSE; the event's name is the diary's, its data a `RunEvent`).
* Scripts, styles and pictures come from ``/static`` alone (CSP: no inline script, no eval, no other host).
* Pages are added by ``service.http.pages.install(app)``, where there is such a package; errors are JSON unless it says
  else.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

from fastapi import FastAPI

from service.http import errors
from service.http.as_json import AsJson
from service.http.backend import Backend
from service.http.feeds import Feeds
from service.http.routes import ROUTERS
from service.http.safety import Guard
from service.http.settings import ServiceSettings

PREFIX = "/api/v1"


def create_app(settings: ServiceSettings) -> FastAPI:
    """The application; its jobs are started and watched between startup and shutdown.

    Raises `InvalidConfig` for settings that cannot be, `LedgerError` where the database cannot be used.
    """
    backend = Backend(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with backend:
            yield

    app = FastAPI(
        title="model-kinship",
        summary="Searches, matrices, merges and family trees of language models.",
        version=version("model-kinship"),
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # both load scripts of other hosts
        redoc_url=None,
        lifespan=lifespan,
        separate_input_output_schemas=False,
    )
    app.state.backend = backend
    app.state.feeds = Feeds(backend)
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX, responses=errors.documented(*errors.ANYWHERE))
    if find_spec("service.http.pages") is not None:
        import_module("service.http.pages").install(app)
    app.add_middleware(AsJson, prefix=PREFIX)
    app.add_middleware(Guard, settings=settings)
    return app
