"""A merge: a recipe to look over, change and start as a job."""

from typing import Any
from urllib.parse import urlencode

import yaml
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from kinship.errors import InvalidConfig, KinshipError
from kinship.safe_yaml import InvalidYaml, load_yaml_documents
from merging.recipe.documents import united
from merging.recipe.schema import parse_recipe
from service.http import orders
from service.http.backend import Asked
from service.http.measuring import Chosen
from service.http.pages.form import told
from service.http.pages.rendering import page
from service.http.pages.typed import Form, Typed, go_to
from service.http.requests import MergeRequest
from service.http.searches import submit

router = APIRouter()


@router.get("/merge")
def show_merge(
    backend: Asked,
    base: str = "",
    model: Chosen = None,
    run: str | None = None,
    individual: str | None = None,
) -> Response:
    """The form: with a recipe for these models, or with that of a run's individual."""
    if run is not None and individual is not None:
        return _form(backend.recipe(run, individual).to_yaml(), individual)
    recipe: dict[str, Any] = {
        "merge_method": "linear",
        "models": [{"model": one, "parameters": {"weight": 1.0}} for one in model or ["MODEL", "MODEL"]],
    }
    if base:
        recipe |= {"merge_method": "task_arithmetic", "base_model": base, "parameters": {"normalize": True}}
    return _form(yaml.safe_dump(recipe, sort_keys=False), "")


@router.post("/merge")
def start_merge(backend: Asked, form: Form) -> Response:
    """Start it as a job; else the same form, with what is wrong."""
    text, name = _typed(form)
    try:
        request = MergeRequest.model_validate({"name": name or "merged", "recipe": _content(text)})
        order = orders.merge(request, backend.settings)
        return go_to("jobs", submit(backend, order).id)
    except ValidationError:
        problem = "A name has up to 100 letters, digits, points, hyphens and low lines."
    except KinshipError as error:
        problem = told(error)
    return _form(text, name, problem, 422)


@router.post("/merge/search")
def search_from_recipe(form: Form) -> Response:
    """To the form of a run whose founders are the recipe's models; else the same form, with what is wrong."""
    text, name = _typed(form)
    try:
        recipe = parse_recipe(_content(text))
    except KinshipError as error:
        return _form(text, name, told(error), 422)
    base = recipe.base_model if isinstance(recipe.base_model, str) else ""
    founders = [model for model in recipe.references if model != base]
    return RedirectResponse(f"/new?{urlencode({'base': base, 'model': founders}, doseq=True)}", 303)


def _typed(form: Typed) -> tuple[str, str]:
    given = dict(form)
    return given.get("recipe", ""), given.get("name", "").strip()


def _content(text: str) -> dict[str, Any]:
    """The recipe in a text, of one document or several. Raises `InvalidConfig`."""
    try:
        documents = load_yaml_documents(text)
    except InvalidYaml as error:
        raise InvalidConfig(f"This is no YAML: {error}.") from None
    recipe = documents[0] if len(documents) == 1 else united(documents, "The recipe")
    if not isinstance(recipe, dict):
        raise InvalidConfig("A recipe is a mapping.", hint="Write `merge_method: linear`, `models:` ...")
    return recipe


def _form(recipe: str, name: str, error: str = "", status: int = 200) -> Response:
    return page("merge", "/kinship", status=status, recipe=recipe, name=name, error=error)
