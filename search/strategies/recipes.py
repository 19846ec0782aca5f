"""From parents to the recipe of their child."""

from collections.abc import Mapping, Sequence

from merging.recipe.schema import Recipe, Setting
from merging.registry import MergeMethod, get_method
from search.strategies.settings import MergeSettings

BASE = "base"


def recipe_for(
    parents: Sequence[str], settings: MergeSettings, parameters: Mapping[str, Setting] | None = None
) -> Recipe:
    """The recipe that merges ``parents``, the better-scoring one first, as ``settings`` say.

    Its model names are ids of individuals. ``parameters`` override the settings'. Where the method's base is one of the
    models merged (slerp), it is the first parent.
    """
    method = get_method(settings.method)
    given = {**settings.parameters, **(parameters or {})}
    if any(parameter.name == "weight" for parameter in method.parameters):
        given.setdefault("weight", 1.0)
    return recipe_of(method, [(parent, {}) for parent in parents], given)


def recipe_of(
    method: MergeMethod, models: Sequence[tuple[str, Mapping[str, Setting]]], parameters: Mapping[str, Setting]
) -> Recipe:
    """The recipe that merges ``models``, each with parameters of its own, under ``parameters`` for all.

    The base model is named where the method works from it, and is the first model where it is one of those merged.
    """
    scaled = method.name == "linear" and parameters.get("scale", 1.0) != 1.0
    base: str | None = None
    if method.base == "merged":
        base = models[0][0]
    elif method.subtracts_base or scaled:
        base = BASE
    return Recipe.model_validate(
        {
            "merge_method": method.name,
            "models": [{"model": id, "parameters": dict(own)} for id, own in models],
            "base_model": base,
            "parameters": dict(parameters),
        }
    ).check()
