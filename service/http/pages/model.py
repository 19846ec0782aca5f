"""Models: the list, where work on them starts; what headers and small files of one tell; remembering others."""

from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.responses import Response

from service.http.backend import Asked
from service.http.models import facts_of, list_models, remember
from service.http.pages.rendering import page
from service.http.pages.typed import Form, go_to

router = APIRouter()


@router.get("/models")
def show_model(backend: Asked, reference: str | None = None) -> Response:
    """All of them; or of one size, frame, tensors, and what can be done with it; of a Hub model by range requests."""
    if reference is None:
        return page("models", "/models", json="models", models=list_models(backend).models)
    facts = facts_of(backend, reference)
    remembered = {model.reference for model in list_models(backend).models if model.kind == "registered"}
    address = f"models/facts?{urlencode({'reference': reference})}"
    return page("model", "/models", json=address, model=facts, remembered=reference in remembered)


@router.post("/models")
def remember_model(backend: Asked, form: Form) -> Response:
    """Remember a reference, such as one to the Hub."""
    remember(backend, dict(form).get("reference", "").strip())
    return go_to("models")
