"""A merge: a recipe to look over, change and start as a job."""

from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Query
from pydantic import ValidationError
from starlette.responses import Response

from kinship.errors import InvalidConfig, KinshipError
from kinship.safe_yaml import InvalidYaml, load_yaml_documents
from merging.recipe.documents import united
from service.http import orders
from service.http.backend import Asked
from service.http.pages.rendering import page
from service.http.pages.typed import Form, go_to
from service.http.requests import MergeRequest
from service.http.searches import submit

router = APIRouter()


@router.get("/merge")
def show_merge(
    backend: Asked,
    base: str = "",
    model: Annotated[list[str] | None, Query(max_length=200)] = None,
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
    given = dict(form)
    text, name = given.get("recipe", ""), given.get("name", "").strip()
    try:
        documents = load_yaml_documents(text)
        recipe = documents[0] if len(documents) == 1 else united(documents, "The recipe")
        if not isinstance(recipe, dict):
            raise InvalidConfig("A recipe is a mapping.", hint="Write `merge_method: linear`, `models:` ...")
        order = orders.merge(MergeRequest(name=name or "merged", recipe=recipe), backend.settings)
        return go_to("jobs", submit(backend, order).id)
    except InvalidYaml as error:
        problem = f"This is no YAML: {error}"
    except ValidationError:
        problem = "A name has up to 100 letters, digits, points, hyphens and low lines."
    except KinshipError as error:
        problem = f"{error.message} {error.hint or ''}".strip()
    return _form(text, name, problem, 422)


def _form(recipe: str, name: str, error: str = "", status: int = 200) -> Response:
    return page("merge", "/kinship", status=status, recipe=recipe, name=name, error=error)
