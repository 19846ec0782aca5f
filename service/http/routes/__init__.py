"""One module a resource: each has a ``router``, whose routes ask `service.answers` and the workspace, and no more."""

from service.http.routes import events, health, individuals, runs

ROUTERS = (health.router, runs.router, individuals.router, events.router)
