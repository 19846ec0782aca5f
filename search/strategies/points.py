"""Points of the founders' span: one coefficient for each founder's task vector, the same in every tensor."""

from collections.abc import Sequence

import numpy as np

from kinship.arrays import Float64
from kinship.errors import InvalidConfig
from merging.recipe import Recipe
from merging.registry import get_method
from search.config import MergeSettings
from search.mating import recipe_of

DECIMALS = 4  # of coefficients in recipes: finer differences make no difference to a score
BY_WEIGHTS = ("linear", "task_arithmetic")


def point_recipe(point: Float64, founders: Sequence[str]) -> Recipe:
    """``base + sum_i point[i] (founder_i - base)`` as task arithmetic; founders without a share are left out.

    >>> point_recipe(np.array([0.5, 0.0, 1.25]), ["a", "b", "c"]).to_dict()["models"]
    [{'model': 'a', 'parameters': {'weight': 0.5}}, {'model': 'c', 'parameters': {'weight': 1.25}}]
    """
    shares = [(id, round(float(share), DECIMALS)) for id, share in zip(founders, point, strict=True)]
    used = [(id, {"weight": share}) for id, share in shares if share] or [(founders[0], {"weight": 0.0})]
    return recipe_of(get_method("task_arithmetic"), used, {})


def average(members: Sequence[int], count: int, scale: float = 1.0) -> Float64:
    """The average of some of ``count`` founders, its task vector stretched by ``scale``."""
    point = np.zeros(count)
    point[list(members)] = scale / len(members)
    return point


def require_weights(merge: MergeSettings, strategy: str) -> None:
    """Raise `InvalidConfig` where the run merges by a method whose results are no such points."""
    if merge.method not in BY_WEIGHTS or set(merge.parameters) - {"weight", "normalize", "scale", "lambda"}:
        raise InvalidConfig(
            f"The strategy {strategy!r} searches weights and scale of {' or '.join(BY_WEIGHTS)}; "
            f"merge.method is {merge.method!r}.",
            hint="Leave merge: out, or choose the strategy topk or optuna, which take any method.",
        )
