"""Searches by methods that stay in the span of two models, and by one that does not."""

import pytest
import torch
from safetensors.torch import load_file

from kinship.errors import InvalidConfig
from merging.merge import write_merge
from merging.recipe.schema import parse_recipe
from search.running.coordinator import Search
from search.strategies.recipes import BASE
from search.strategies.settings import MergeSettings
from tests.search.runs import Scene

METHODS = {
    "karcher": {},
    "lines": {"lambda": [0.4, 0.8]},
    "model_stock": {},
    "multislerp": {},
    "nuslerp": {},
    "slerp": {"t": 0.4},
    "ties": {"density": 0.5},  # leaves the span: children are stored
}


@pytest.mark.parametrize("method", METHODS)
def test_children_are_what_their_recipes_make(scene: Scene, method: str) -> None:
    config = scene.config(merge={"method": method, "parameters": METHODS[method]}, stop={"generations": 1})
    scene.run("run", config)
    places = {BASE: str(scene.base), **{name: str(path) for name, path in scene.founders.items()}}
    children = [record for record in scene.records("run") if record.generation == 1]
    assert len(children) >= 3
    with Search(config, scene.folder / "run", evaluator=scene.evaluator()) as search:
        for child in children:
            recipe = dict(child.recipe)
            recipe["models"] = [entry | {"model": places[entry["model"]]} for entry in recipe["models"]]
            if "base_model" in recipe:
                recipe["base_model"] = places[recipe["base_model"]]
            folder = write_merge(parse_recipe(recipe), scene.folder / f"{method} {child.id}")
            written = load_file(folder / "model.safetensors")
            for name, tensor in search.candidate(child).tensors():
                torch.testing.assert_close(tensor, written[name], rtol=1e-5, atol=1e-5)


def test_methods_that_do_not_merge_two_models_are_refused_naming_those_that_do() -> None:
    with pytest.raises(InvalidConfig, match=r"passthrough does not merge two models.* merges by: .*slerp.*ties"):
        MergeSettings(method="passthrough")
    with pytest.raises(InvalidConfig, match="Did you mean 'linear'"):
        MergeSettings(method="liner")
