"""One module a resource: each has a ``router``, whose routes ask `service.answers` and the workspace, and no more."""

from service.http.routes import (
    artefacts,
    comparisons,
    events,
    health,
    individuals,
    jobs,
    models,
    orders,
    runs,
    searches,
)

ROUTERS = (
    health.router,
    runs.router,
    individuals.router,
    events.router,
    comparisons.router,
    jobs.router,
    searches.router,
    orders.router,
    models.router,
    artefacts.router,
)
