"""Merges that mergekit 0.1.5 wrote, made again: a slice of them everywhere, all of them where they are at hand.

tests/merging/golden/README.md says what they are, and how near ours have to be.
"""

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
from merging.merge import write_merge
from merging.recipe.parameters import Layers, values_for
from merging.recipe.schema import load_recipe
from merging.registry import methods

ABSENT = "(golden data is absent)"
SLICE = Path(__file__).parent / "golden"
PLACE = Path(os.environ.get("MODEL_KINSHIP_SHARED", Path(__file__).parents[3] / "shared")) / "golden/mergekit"
PLACES = {"slice": SLICE} | ({"all": PLACE} if PLACE.is_dir() else {})

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
def facts(place: str) -> dict[str, dict[str, Any]]:
    """What the manifest says of each recipe."""
    return {entry["id"]: entry for entry in json.loads((PLACES[place] / "manifest.json").read_text())["recipes"]}


def cases(*, random: bool) -> list[tuple[str, str]]:
    """Where each recipe is, and its name."""
    return [(place, name) for place in PLACES for name, fact in facts(place).items() if fact["random"] is random]


@pytest.fixture
def golden(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All the golden data; its models are named relative to the working directory."""
    place = shared / "golden/mergekit"
    if not place.is_dir():
        pytest.skip(f"no golden data at {place}")
    monkeypatch.chdir(place / "models")
    return place


def require_method(name: str) -> None:
    if name not in methods():
        pytest.fail(f"the merge method {name!r} is not registered")


@pytest.mark.parametrize(("where", "name"), cases(random=False))
def test_merge_is_mergekits(where: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, fact = PLACES[where], facts(where)[name]
    method = fact["method"]
    require_method(method)
    monkeypatch.chdir(place / "models")
    folder = write_merge(load_recipe(place / f"recipes/{name}.yml"), tmp_path / "out")
    got = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    assert config["num_hidden_layers"] == fact["output_config"]["num_hidden_layers"]
    assert config["dtype"] == fact["output_config"]["dtype"]
    want = load_file(place / f"outputs/{name}.safetensors")
    ambiguous = place / f"ambiguous/{name}.safetensors"
    left_out = load_file(ambiguous) if ambiguous.exists() else {}
    assert got.keys() == want.keys()
    for key, tensor in want.items():
        assert (got[key].dtype, got[key].shape) == (tensor.dtype, tensor.shape), key
        error = (got[key].double() - tensor.double()).abs().flatten()
        if key in left_out:
            error[left_out[key].long()] = 0.0
        excess = error - tolerance(fact, tensor.flatten())
        stray = int((excess > 0).sum())
        assert stray <= STRAYS.get(name, 0.0) * len(error), (
            f"{key}: {stray} of {len(error)}, by up to {excess.max():.3g}"
        )


def tolerance(fact: dict[str, Any], want: torch.Tensor) -> torch.Tensor:
    """How far from ``want`` (flat) an element may be, as the golden data's README says."""
    name, method = fact["id"], fact["method"]
    top = want.double().abs().max()
    if want.dtype == torch.float32:
        return NOISIER.get(method, NOISE) * 2.0**-23 * top * torch.ones_like(want, dtype=torch.float64)
    digits = 10 if want.dtype == torch.float16 else 7
    native = name.endswith(".bf16") or name == "dtype-bf16"
    if native and method not in UPCASTING:
        noise = 2.0 if name == "dtype-bf16" else fact["vs_float64"]["max_abs_in_eps_of_tensor_max"] + 1
        return noise * 2.0**-digits * top * torch.ones_like(want, dtype=torch.float64)
    floor = want.double().abs().clamp(min=float(1e-3 * top)).clamp(min=1e-30)
    return torch.exp2(torch.floor(torch.log2(floor)) - digits)  # one unit in the last place


def test_the_recipes_are_all_there(golden: Path) -> None:
    assert set(listed("recipes")) == facts("all").keys()
    assert len(facts("all")) > 80


def test_the_slice_has_every_method_and_stays_small() -> None:
    """Of mergekit's; ours are all those that need no more than a recipe and have mergekit's name."""
    found = {fact["method"] for fact in facts("slice").values()}
    assert found >= {fact["method"] for place in PLACES for fact in facts(place).values()}
    assert found <= methods().keys()
    assert len(found) == 20
    assert sum(file.stat().st_size for file in SLICE.rglob("*") if file.is_file()) <= 300_000


@pytest.mark.parametrize(("where", "name"), cases(random=True))
def test_random_merge_is_mergekits_on_average(where: str, name: str) -> None:
    """The kernel over as many seeds as mergekit was run with; means differ by as much as theirs among themselves."""
    place = PLACES[where]
    recipe = load_recipe(place / f"recipes/{name}.yml")
    statistics = json.loads((place / f"stats/{name}.json").read_text())
    (part,) = recipe.parts
    models = [load_file(place / f"models/{entry.model}/model.safetensors") for entry in part.inputs]
    start = load_file(place / f"models/{part.base}/model.safetensors")
    scopes = [(str(entry.model), (entry.parameters, *part.scopes)) for entry in part.inputs]
    layers, count = Layers.of(start), statistics["seeds"]
    for key, want in statistics["tensors"].items():
        base, values = start[key].double(), values_for(recipe.method, scopes, key, layers.position(key))
        vectors = torch.stack([model[key] - start[key] for model in models])
        generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
        moves = [
            recipe.method.tensor(vectors.clone(), values, has_base=True, generator=generator)
            for generator in generators
        ]
        outputs = torch.stack([start[key] + move for move in moves]).double()
        spread = want["output_mean_std_over_seeds"] * (2 / count) ** 0.5
        assert abs(float(outputs.mean()) - want["output_mean"]) <= 6 * spread + 1e-5 * abs(want["output_mean"]), key
        if want["n"] < 400:
            continue
        norm = float((outputs - base).flatten(1).norm(dim=1).mean())
        assert norm == pytest.approx(want["output_minus_base_norm_mean"], rel=0.03), key
        assert float(outputs.std(dim=0).mean()) == pytest.approx(want["elementwise_std_mean"], rel=0.1), key
        if len(models) == 1 and want.get("tested", 0) >= 0.9 * want["n"]:
            delta = models[0][key].double() - base
            kept = ((outputs - base)[:, delta.abs() > 1e-6] != 0).double().mean()
            assert float(kept) == pytest.approx(
                want["fraction_kept_mean"], abs=6 * want["fraction_kept_std"] * (2 / count) ** 0.5
            )
            ratio = ((outputs - base).abs().flatten(1).sum(dim=1) / delta.abs().sum()).numpy()
            spread = want["l1_ratio_std"] * (2 / count) ** 0.5
            assert ratio.mean() == pytest.approx(want["l1_ratio_mean"], abs=6 * spread + 1e-5), key


@pytest.mark.parametrize("name", [name for name in listed("recipes_error") if not name.startswith("chk-")])
def test_impossible_recipe_is_refused(golden: Path, tmp_path: Path, name: str) -> None:
    method = yaml.safe_load((golden / f"recipes_error/{name}.yml").read_text())["merge_method"]
    if name != "err-unknown-method":
        require_method(method)
    with pytest.raises(KinshipError) as refusal:
        write_merge(load_recipe(golden / f"recipes_error/{name}.yml"), tmp_path / "out")
    assert refusal.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", EDGE_CASES)
def test_edge_case_is_refused(golden: Path, tmp_path: Path, name: str) -> None:
    """mergekit divides by zero and ignores the parameter; the layer it misses too, but after reading."""
    require_method(yaml.safe_load((golden / f"recipes_error/{name}.yml").read_text())["merge_method"])
    with pytest.raises(InvalidConfig) as refusal:
        write_merge(load_recipe(golden / f"recipes_error/{name}.yml"), tmp_path / "out")
    assert EDGE_CASES[name] in refusal.value.message
    assert list(tmp_path.iterdir()) == []


def test_ties_of_density_zero_is_the_base(golden: Path, tmp_path: Path) -> None:
    """As in mergekit."""
    require_method("ties")
    recipe = load_recipe(golden / "recipes_error/chk-ties-density-zero.yml")
    merged = load_file(write_merge(recipe, tmp_path / "out") / "model.safetensors")
    base = load_file(golden / "models/ll-base/model.safetensors")
    assert all(torch.equal(merged[name], tensor) for name, tensor in base.items())


def test_number_written_as_text_is_accepted(golden: Path, tmp_path: Path) -> None:
    recipe = load_recipe(golden / "recipes_error/chk-weight-string-sci.yml")
    merged = load_file(write_merge(recipe, tmp_path / "out") / "model.safetensors")
    one, two = (load_file(golden / f"models/{model}/model.safetensors") for model in ("ll-ft1", "ll-ft2"))
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, (0.1 * one[name] + 0.5 * two[name]) / 0.6)
