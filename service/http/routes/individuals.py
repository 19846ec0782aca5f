"""The individuals of a run."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.answers.export import Individual
from service.answers.jobs import Job
from service.answers.served import IndividualPage
from service.http.backend import Asked
from service.http.errors import documented
from service.http.idempotency import Once, accepted
from service.http.individuals import MOST, Order, Selection
from service.http.replies import reply, reply_text
from service.http.searches import make_model

router = APIRouter(tags=["individuals"], responses=documented(404, 422))

FROM_WORKSPACE = "# Models are named from the workspace: run kinship merge in that folder.\n"


@router.get("/runs/{run}/individuals", response_model=IndividualPage)
def list_individuals(
    request: Request,
    run: str,
    backend: Asked,
    order: Order = "proposed",
    generation: Annotated[int | None, Query(ge=0, le=2**31)] = None,
    role: Annotated[str | None, Query(description="base, founder, or why it was proposed.")] = None,
    failed: bool | None = None,
    parent: str | None = None,
    search: Annotated[str | None, Query(description="Part of the id.")] = None,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
    most: Annotated[int, Query(ge=1, le=MOST)] = 100,
) -> Response:
    """Some of them: filtered, in an order, from a cursor on."""
    return reply(
        request, backend.individuals(run, Selection(order, generation, role, failed, parent, search, after, most))
    )


@router.get("/runs/{run}/individuals/{individual}", response_model=Individual)
def show_individual(request: Request, run: str, individual: str, backend: Asked) -> Response:
    """One of them, as the export has it."""
    return reply(request, backend.individual(run, individual))


@router.get(
    "/runs/{run}/individuals/{individual}/recipe",
    response_class=Response,
    responses={200: {"content": {"application/yaml": {"schema": {"type": "string"}}}}},
)
def show_recipe(request: Request, run: str, individual: str, backend: Asked) -> Response:
    """How to make it of base and founders: a recipe in mergekit's YAML, of several documents for several merges."""
    text = FROM_WORKSPACE + backend.recipe(run, individual).to_yaml()
    return reply_text(request, text, "application/yaml")


@router.post(
    "/runs/{run}/individuals/{individual}/model",
    status_code=202,
    response_model=Job,
    responses=documented(403, 409, 429),
)
def make_individual(run: str, individual: str, backend: Asked, once: Once) -> Response:
    """Merge it by its recipe: a job, whose model folder can be taken away as one file."""
    return accepted(make_model(backend, run, individual, *once))
