"""Which merges a search may use, and the recipes it makes of them."""

import pytest

from kinship.errors import InvalidConfig
from merging.registry import methods
from search.strategies.recipes import BASE, recipe_for
from search.strategies.settings import MergeSettings

NEEDED = {"slerp": {"t": 0.5}, "nearswap": {"t": 0.1}, "lines": {"lambda": [0.5, 1.0]}, "emr": {"task": 1}}
PAIRS = [
    name
    for name, method in methods().items()
    if method.max_models != 1 and not method.takes_whole_models and not method.module
]


@pytest.mark.parametrize("name", PAIRS)
def test_every_method_for_two_models_makes_a_recipe_of_two_parents(name: str) -> None:
    recipe = recipe_for(["best", "second"], MergeSettings(method=name, parameters=NEEDED.get(name, {})))
    method = methods()[name]
    assert [entry.model for entry in recipe.parts[0].merged(method)] == ["best", "second"]
    if method.base == "merged":
        assert recipe.base_model == "best"
    elif method.needs_base:
        assert recipe.base_model == BASE


def test_parameters_reach_the_recipe() -> None:
    settings = MergeSettings(method="ties", parameters={"density": [0.2, 0.8], "lambda": 0.7})
    recipe = recipe_for(["best", "second"], settings)
    assert recipe.parameters == {"density": [0.2, 0.8], "lambda": 0.7, "weight": 1.0}


def test_a_method_for_one_model_is_refused_naming_those_for_two() -> None:
    with pytest.raises(InvalidConfig, match=r"passthrough does not merge two models.* merges by: .*slerp.*ties"):
        MergeSettings(method="passthrough")


@pytest.mark.parametrize(
    ("parameters", "said"), [({"density": 1.5}, "'density' is 1.5"), ({"normalize": 0.5}, "true or false")]
)
def test_values_out_of_range_are_refused_at_once(parameters: dict[str, float], said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        MergeSettings(method="ties", parameters=parameters)
