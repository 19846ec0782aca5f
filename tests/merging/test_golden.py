"""Merges against the ones that mergekit 0.1.5 wrote: tests/conftest.py says where they lie."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from kinship.errors import KinshipError
from merging.recipe import load_recipe
from merging.run import run_merge

METHODS = {"linear", "slerp", "task_arithmetic"}
UNSUPPORTED = {"slices", "out_dtype"}
ABSENT = "(golden data is absent)"

# |got - want| <= unit * max|want| of the tensor: the tolerances of the golden data's README.
TOLERANCE = {torch.float32: 4 * 2.0**-23, torch.bfloat16: 2.0**-7}


def listed(folder: str, *, without: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """Names of the recipes of our methods, or one name for the fixture to skip where there is no data."""
    place = Path(os.environ.get("MODEL_KINSHIP_SHARED", Path(__file__).parents[3] / "shared"))
    names = []
    for file in sorted((place / "golden/mergekit" / folder).glob("*.yml")):
        content = yaml.safe_load(file.read_text())
        if content["merge_method"] in METHODS and not without & content.keys():
            names.append(file.stem)
    return names or [ABSENT]


@pytest.fixture
def golden(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The golden data; its models are named relative to the working directory."""
    place = shared / "golden/mergekit"
    if not place.is_dir():
        pytest.skip(f"no golden data at {place}")
    monkeypatch.chdir(place / "models")
    return place


@pytest.mark.parametrize("name", listed("recipes", without=UNSUPPORTED))
def test_merge_is_mergekits(golden: Path, tmp_path: Path, name: str) -> None:
    got = load_file(run_merge(load_recipe(golden / f"recipes/{name}.yml"), tmp_path / "out") / "model.safetensors")
    want = load_file(golden / f"outputs/{name}.safetensors")
    assert got.keys() == want.keys()
    for key, tensor in want.items():
        assert got[key].dtype == tensor.dtype, key
        assert got[key].shape == tensor.shape, key
        error = float((got[key].double() - tensor.double()).abs().max())
        assert error <= TOLERANCE[tensor.dtype] * float(tensor.double().abs().max()), key


def test_most_recipes_of_our_methods_are_run(golden: Path) -> None:
    recipes = json.loads((golden / "manifest.json").read_text())["recipes"]
    ours = [entry for entry in listed("recipes") if entry != ABSENT]
    assert len(recipes) > 60
    assert len(listed("recipes", without=UNSUPPORTED)) >= 20
    assert {f"{method}" for method in METHODS} == {
        yaml.safe_load((golden / f"recipes/{name}.yml").read_text())["merge_method"] for name in ours
    }


@pytest.mark.parametrize("name", [name for name in listed("recipes_error") if not name.startswith("chk-")])
def test_impossible_recipe_is_refused(golden: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(KinshipError) as refusal:
        run_merge(load_recipe(golden / f"recipes_error/{name}.yml"), tmp_path / "out")
    assert refusal.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["chk-linear-zero-sum", "chk-unknown-parameter"])
def test_what_mergekit_lets_pass_is_refused_here(golden: Path, tmp_path: Path, name: str) -> None:
    """mergekit divides by zero, and ignores the parameter."""
    with pytest.raises(KinshipError):
        run_merge(load_recipe(golden / f"recipes_error/{name}.yml"), tmp_path / "out")


def test_number_written_as_text_is_accepted(golden: Path, tmp_path: Path) -> None:
    recipe = load_recipe(golden / "recipes_error/chk-weight-string-sci.yml")
    merged = load_file(run_merge(recipe, tmp_path / "out") / "model.safetensors")
    one, two = (load_file(golden / f"models/{model}/model.safetensors") for model in ("ll-ft1", "ll-ft2"))
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, (0.1 * one[name] + 0.5 * two[name]) / 0.6)
