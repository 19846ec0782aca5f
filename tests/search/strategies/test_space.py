"""Recipes of coefficient searches, against the span's own algebra."""

import numpy as np
import pytest

from kinship.checkpoints.tensor_names import layer_index
from merging.registry import get_method
from search.strategies.base import Proposal
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.space import Space, group_setting, tensor_groups
from search.testing.strategy import NAMES, Bowl


def space(bowl: Bowl, merge: MergeSettings | None = None, **settings: object) -> Space:
    chosen = StrategySettings.model_validate({"name": "optuna"} | settings)
    return Space.of(chosen, merge or MergeSettings(), bowl.context())


def test_weights_are_shares_that_the_scale_stretches() -> None:
    bowl = Bowl(founders=3)
    found = space(bowl)
    values = {"weight founder-0": 0.2, "weight founder-1": 0.6, "weight founder-2": 0.0, "lambda": 1.5}
    assert found.bounds.keys() == values.keys()
    genome = bowl.span.merge(found.recipe(values), bowl.genomes)
    np.testing.assert_allclose(genome.coefficients, [[-0.5, 0.375, 1.125, 0.0]] * len(NAMES), atol=1e-12)


def test_founders_base_and_averages_are_points() -> None:
    bowl = Bowl(founders=3)
    found = space(bowl, coefficients="modules")
    for weights, scale, expected in (
        ({"founder-1": 1.0}, 1.0, [0, 0, 1, 0]),
        ({"founder-1": 1.0}, 0.0, [1, 0, 0, 0]),
        (dict.fromkeys(bowl.ids, 1.0), 1.0, [0, 1 / 3, 1 / 3, 1 / 3]),
    ):
        values = found.values_of(weights, scale)
        assert values is not None
        assert values.keys() == found.bounds.keys()
        genome = bowl.span.merge(found.recipe(values), bowl.genomes)
        np.testing.assert_allclose(genome.coefficients, [expected] * len(NAMES), atol=2e-4)
    assert found.values_of({"founder-1": 1.0}, 5.0) is None


@pytest.mark.parametrize("by", ["layers", "modules"])
def test_each_group_gets_its_own_coefficients(by: str) -> None:
    bowl = Bowl(founders=2)
    found = space(bowl, coefficients=by)
    random = np.random.default_rng(0)
    values = {name: random.uniform(low + 0.1, high) for name, (low, high) in found.bounds.items()}
    genome = bowl.span.merge(found.recipe(values), bowl.genomes)
    for row, name in zip(genome.coefficients, NAMES, strict=True):
        if by == "layers":
            group = f"layers {2 if name == 'model.norm.weight' or layer_index(name) == 1 else 1}"
        else:
            group = "mlp" if "mlp" in name else "attention" if "attn" in name else "rest"
        shares = np.array([values[f"weight {id} {group}"] for id in bowl.ids])
        np.testing.assert_allclose(row[1:], values[f"lambda {group}"] * shares / shares.sum(), atol=1e-4)


def test_layers_ten_and_one_are_told_apart() -> None:
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(12)]
    groups = tensor_groups(names, "layers", 12)
    assert [len(members) for members in groups.values()] == [1] * 12
    setting = group_setting({label: float(index) for index, label in enumerate(groups)}, groups)
    assert isinstance(setting, list)


def test_ties_varies_weight_and_density_of_each_model() -> None:
    bowl = Bowl(founders=2)
    found = space(bowl, MergeSettings(method="ties", parameters={"density": 0.5, "normalize": True}))
    assert set(found.bounds) >= {f"{name} {id}" for name in ("weight", "density") for id in bowl.ids}
    recipe = found.recipe({name: low + 0.5 * (high - low) for name, (low, high) in found.bounds.items()})
    assert recipe.method == get_method("ties")
    assert recipe.parameters["normalize"] is True
    assert Proposal(recipe, "model").parents == bowl.ids


def test_slerp_varies_the_pair_and_t() -> None:
    bowl = Bowl(founders=3)
    found = space(bowl, MergeSettings(method="slerp", parameters={"t": 0.5}))
    assert found.bounds == {"pair": (0.0, 1.0), "t": (0.0, 1.0)}
    pairs = {Proposal(found.recipe({"pair": place, "t": 0.2}), "model").parents for place in (0.0, 0.5, 1.0)}
    assert pairs == {("founder-0", "founder-1"), ("founder-0", "founder-2"), ("founder-1", "founder-2")}
