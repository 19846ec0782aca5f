"""Every merge that mergekit 0.1.5 wrote, made again: tests/conftest.py says where they lie, their README how near."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from kinship.errors import InvalidConfig, KinshipError
from merging.merge import run_merge
from merging.recipe.schema import load_recipe
from merging.registry import methods

ABSENT = "(golden data is absent)"
PLACE = Path(os.environ.get("MODEL_KINSHIP_SHARED", Path(__file__).parents[3] / "shared")) / "golden/mergekit"

# |got - want| <= c * 2^-23 * max|want| for fp32.
NOISE, NOISIER = 4.0, dict.fromkeys(("karcher", "multislerp", "model_stock"), 8.0)

# Methods that mergekit itself computes in fp32 whatever the inputs; of the others' bf16 merges ours are closer to the
# truth than mergekit's.
UPCASTING = {"linear", "slerp", "passthrough"}

# Share of a tensor's elements that may differ: mergekit takes its variances in bf16, where more of them are zero, so
# that it selects a few elements less.
STRAYS = {"sce-topk.bf16": 0.01}

EDGE_CASES = {
    "chk-layer-range-too-long": "layers",
    "chk-linear-zero-sum": "sum to zero",
    "chk-unknown-parameter": "no_such_parameter",
}


def listed(folder: str) -> list[str]:
    """Names of the recipes there, or one name for the fixture to skip where there is no data."""
    return sorted(file.stem for file in (PLACE / folder).glob("*.yml")) or [ABSENT]


@cache
def facts() -> dict[str, dict[str, Any]]:
    """What the manifest says of each recipe."""
    return {entry["id"]: entry for entry in json.loads((PLACE / "manifest.json").read_text())["recipes"]}


@pytest.fixture
def golden(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The golden data; its models are named relative to the working directory."""
    place = shared / "golden/mergekit"
    if not place.is_dir():
        pytest.skip(f"no golden data at {place}")
    monkeypatch.chdir(place / "models")
    return place


def require_method(name: str) -> None:
    if name not in methods():
        pytest.fail(f"the merge method {name!r} is not registered")


@pytest.mark.parametrize("name", listed("recipes"))
def test_merge_is_mergekits(golden: Path, tmp_path: Path, name: str) -> None:
    method = yaml.safe_load((golden / f"recipes/{name}.yml").read_text())["merge_method"]
    require_method(method)
    folder = run_merge(load_recipe(golden / f"recipes/{name}.yml"), tmp_path / "out")
    got, fact = load_file(folder / "model.safetensors"), facts()[name]
    if fact["random"]:  # the kernels' own tests compare statistics
        inputs = [load_file(golden / f"models/{model}/model.safetensors") for model in fact["inputs"]]
        assert all(got.keys() == tensors.keys() for tensors in inputs)
        return
    config = json.loads((folder / "config.json").read_text())
    assert config["num_hidden_layers"] == fact["output_config"]["num_hidden_layers"]
    assert config["dtype"] == fact["output_config"]["dtype"]
    want = load_file(golden / f"outputs/{name}.safetensors")
    ambiguous = golden / f"ambiguous/{name}.safetensors"
    left_out = load_file(ambiguous) if ambiguous.exists() else {}
    assert got.keys() == want.keys()
    for key, tensor in want.items():
        assert (got[key].dtype, got[key].shape) == (tensor.dtype, tensor.shape), key
        error = (got[key].double() - tensor.double()).abs().flatten()
        if key in left_out:
            error[left_out[key].long()] = 0.0
        excess = error - tolerance(name, method, tensor.flatten())
        stray = int((excess > 0).sum())
        assert stray <= STRAYS.get(name, 0.0) * len(error), (
            f"{key}: {stray} of {len(error)}, by up to {excess.max():.3g}"
        )


def tolerance(name: str, method: str, want: torch.Tensor) -> torch.Tensor:
    """How far from ``want`` (flat) an element may be, as the golden data's README says."""
    top = want.double().abs().max()
    if want.dtype == torch.float32:
        return NOISIER.get(method, NOISE) * 2.0**-23 * top * torch.ones_like(want, dtype=torch.float64)
    digits = 10 if want.dtype == torch.float16 else 7
    native = name.endswith(".bf16") or name == "dtype-bf16"
    if native and method not in UPCASTING:
        noise = 2.0 if name == "dtype-bf16" else facts()[name]["vs_float64"]["max_abs_in_eps_of_tensor_max"] + 1
        return noise * 2.0**-digits * top * torch.ones_like(want, dtype=torch.float64)
    floor = want.double().abs().clamp(min=float(1e-3 * top)).clamp(min=1e-30)
    return torch.exp2(torch.floor(torch.log2(floor)) - digits)  # one unit in the last place


def test_the_recipes_are_all_there(golden: Path) -> None:
    assert set(listed("recipes")) == facts().keys()
    assert len(facts()) > 80


@pytest.mark.parametrize("name", [name for name in listed("recipes_error") if not name.startswith("chk-")])
def test_impossible_recipe_is_refused(golden: Path, tmp_path: Path, name: str) -> None:
    method = yaml.safe_load((golden / f"recipes_error/{name}.yml").read_text())["merge_method"]
    if name != "err-unknown-method":
        require_method(method)
    with pytest.raises(KinshipError) as refusal:
        run_merge(load_recipe(golden / f"recipes_error/{name}.yml"), tmp_path / "out")
    assert refusal.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", EDGE_CASES)
def test_edge_case_is_refused(golden: Path, tmp_path: Path, name: str) -> None:
    """mergekit divides by zero and ignores the parameter; the layer it misses too, but after reading."""
    require_method(yaml.safe_load((golden / f"recipes_error/{name}.yml").read_text())["merge_method"])
    with pytest.raises(InvalidConfig) as refusal:
        run_merge(load_recipe(golden / f"recipes_error/{name}.yml"), tmp_path / "out")
    assert EDGE_CASES[name] in refusal.value.message
    assert list(tmp_path.iterdir()) == []


def test_ties_of_density_zero_is_the_base(golden: Path, tmp_path: Path) -> None:
    """As in mergekit."""
    require_method("ties")
    recipe = load_recipe(golden / "recipes_error/chk-ties-density-zero.yml")
    merged = load_file(run_merge(recipe, tmp_path / "out") / "model.safetensors")
    base = load_file(golden / "models/ll-base/model.safetensors")
    assert all(torch.equal(merged[name], tensor) for name, tensor in base.items())


def test_number_written_as_text_is_accepted(golden: Path, tmp_path: Path) -> None:
    recipe = load_recipe(golden / "recipes_error/chk-weight-string-sci.yml")
    merged = load_file(run_merge(recipe, tmp_path / "out") / "model.safetensors")
    one, two = (load_file(golden / f"models/{model}/model.safetensors") for model in ("ll-ft1", "ll-ft2"))
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, (0.1 * one[name] + 0.5 * two[name]) / 0.6)
