import pytest

from search.strategies.recipes import BASE, recipe_for
from search.strategies.settings import MergeSettings

PARENTS = ("best", "second")


def test_slerp_starts_from_the_better_parent() -> None:
    recipe = recipe_for(PARENTS, MergeSettings(method="slerp", parameters={"t": 0.3}))
    assert recipe.base_model == "best"
    assert [entry.model for entry in recipe.models] == ["best", "second"]
    assert recipe.parameters == {"t": 0.3}


@pytest.mark.parametrize(("parameters", "base"), [({}, None), ({"scale": 1.0}, None), ({"scale": 1.5}, BASE)])
def test_linear_needs_the_base_only_to_scale(parameters: dict[str, float], base: str | None) -> None:
    recipe = recipe_for(PARENTS, MergeSettings(method="linear", parameters=parameters))
    assert recipe.base_model == base
    assert recipe.parameters == {"weight": 1.0} | parameters


def test_task_arithmetic_starts_from_the_base() -> None:
    recipe = recipe_for(PARENTS, MergeSettings(method="task_arithmetic", parameters={"weight": 0.4}))
    assert recipe.base_model == BASE
    assert recipe.parameters == {"weight": 0.4}


def test_parameters_of_the_proposal_come_before_the_settings() -> None:
    recipe = recipe_for(PARENTS, MergeSettings(method="slerp", parameters={"t": 0.3}), {"t": 0.7})
    assert recipe.parameters == {"t": 0.7}


def test_ties_starts_from_the_base_and_keeps_its_density() -> None:
    recipe = recipe_for(PARENTS, MergeSettings(method="ties", parameters={"density": 0.4}))
    assert recipe.base_model == BASE
    assert recipe.parameters == {"weight": 1.0, "density": 0.4}
