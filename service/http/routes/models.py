"""Models: which there are, and what each is."""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Request
from starlette.responses import Response

from service.answers.served import ModelFacts, ServedModels
from service.http import models
from service.http.backend import Asked
from service.http.errors import documented
from service.http.replies import reply
from service.http.requests import ModelRequest, example

router = APIRouter(tags=["models"], responses=documented(403, 404, 422))
Reference = Annotated[str, Query(min_length=1, max_length=4096, description="As in the list, or a Hub id.")]


@router.get("/models", response_model=ServedModels)
def list_models(request: Request, backend: Asked) -> Response:
    """Every model found in the workspace, and every remembered reference."""
    return reply(request, models.list_models(backend))


@router.post("/models", response_model=ServedModels)
def remember_model(
    request: Request, body: Annotated[ModelRequest, Body(**example(reference="org/name@main"))], backend: Asked
) -> Response:
    """Remember a reference, such as one to the Hub."""
    return reply(request, models.remember(backend, body.reference))


@router.delete("/models", status_code=204)
def forget_model(reference: Reference, backend: Asked) -> None:
    """Forget a reference; no file is touched."""
    models.forget(backend, reference)


@router.get("/models/facts", response_model=ModelFacts)
def show_model(
    request: Request,
    reference: Reference,
    backend: Asked,
    identity: Annotated[bool, Query(description="Read all weights, for the identity of their contents.")] = False,
) -> Response:
    """Headers, frame and identity of a model; of a Hub model nothing but headers and small files is fetched."""
    return reply(request, models.facts_of(backend, reference, identity=identity))
