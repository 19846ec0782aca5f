"""A merge: a recipe to look over, change and start as a job."""

from typing import Annotated

import yaml
from fastapi import APIRouter, Query
from starlette.responses import Response

from merging.registry import methods
from service.http.backend import Asked
from service.http.pages.rendering import page

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
    name = ""
    if run is not None and individual is not None:
        config = backend.export(run).config
        founders = config["founders"]
        assert isinstance(founders, dict)
        references = {"base": config["base"], **founders}
        recipe = backend.recipe(run, individual)
        models = recipe["models"]
        assert isinstance(models, list)
        recipe["models"] = [entry | {"model": references.get(str(entry["model"]), entry["model"])} for entry in models if isinstance(entry, dict)]
        name = individual
    else:
        recipe = {
            "merge_method": "linear",
            "models": [{"model": one, "parameters": {"weight": 1.0}} for one in model or ["MODEL", "MODEL"]],
        }
        if base:
            recipe = {"merge_method": "task_arithmetic", "base_model": base, **{key: recipe[key] for key in ("models",)}}
            recipe["parameters"] = {"normalize": True}
    return page(
        "merge", "/kinship", recipe=yaml.safe_dump(recipe, sort_keys=False), name=name,
        methods=sorted(method.name for method in methods().values()),
    )  # fmt: skip
