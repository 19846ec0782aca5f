"""From a mating to the recipe of its child."""

from merging.recipe import Recipe
from merging.registry import get_method
from search.config import MergeSettings
from search.population import Mating

BASE = "base"


def recipe_for(mating: Mating, settings: MergeSettings) -> Recipe:
    """The recipe that merges the parents as ``settings`` say; its model names are ids of individuals.

    Where the method's base is one of the models merged (slerp), it is the better-scoring parent.
    """
    method = get_method(settings.method)
    parameters = dict(settings.parameters)
    if any(parameter.name == "weight" for parameter in method.parameters):
        parameters.setdefault("weight", 1.0)
    scaled = parameters.get("scale", 1.0) != 1.0
    if method.base_is_input:
        base: str | None = mating.parents[0]
    else:
        base = BASE if method.needs_base or method.on_task_vectors or scaled else None
    return Recipe.model_validate(
        {
            "merge_method": method.name,
            "models": [{"model": parent} for parent in mating.parents],
            "base_model": base,
            "parameters": parameters,
        }
    ).check()
