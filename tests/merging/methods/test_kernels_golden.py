"""Kernels against what mergekit 0.1.5 wrote: the recipes of every method, without the engine around them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from merging.recipe.parameters import Filtered, Layers, resolve
from merging.registry import get_method, methods

ABSENT = "(golden data is absent)"
ELSEWHERE = {"linear", "slerp", "task_arithmetic"}  # tests/merging/test_golden.py
LOOSE = {"karcher", "multislerp", "model_stock"}

Tensors = dict[str, torch.Tensor]


def entries() -> dict[str, dict[str, Any]]:
    """The manifest's recipes by id; none where there is no data."""
    place = Path(os.environ.get("MODEL_KINSHIP_SHARED", Path(__file__).parents[4] / "shared")) / "golden/mergekit"
    if not (place / "manifest.json").is_file():
        return {}
    return {entry["id"]: entry for entry in json.loads((place / "manifest.json").read_text())["recipes"]}


def listed(*, random: bool) -> list[str]:
    """Ids of the recipes computed in fp32 from models listed one by one."""
    names = [
        name
        for name, entry in entries().items()
        if entry["method"] not in ELSEWHERE | {"passthrough"}
        and entry["random"] is random
        and not name.endswith(".bf16")
        and entry["dtype"] != "bfloat16"
    ]
    return names or [ABSENT]


class Case:
    """One recipe and its models."""

    def __init__(self, place: Path, name: str) -> None:
        recipe = yaml.safe_load((place / f"recipes/{name}.yml").read_text())
        self.method = get_method(recipe["merge_method"])
        self.inputs = recipe["models"]
        if self.method.base_is_input:
            self.inputs.sort(key=lambda entry: entry["model"] != recipe["base_model"])
        self.scopes = [[_settings(entry), _settings(recipe)] for entry in self.inputs]
        self.models = [_load(place, entry["model"]) for entry in self.inputs]
        self.base = _load(place, recipe["base_model"]) if "base_model" in recipe else None
        self.layers = Layers.of(self.models[0])

    def values(self, key: str) -> dict[str, Any]:
        """The parameters for tensor ``key``."""
        values: dict[str, Any] = {}
        for parameter in self.method.parameters:
            found = [resolve(scopes, parameter.name, key, self.layers.position(key)) for scopes in self.scopes]
            found = [parameter.default if value is None else value for value in found]
            values[parameter.name] = found if parameter.per_model else found[0]
        return values

    def merge(self, key: str, seed: int = 0) -> torch.Tensor:
        """Tensor ``key`` of the merged model, in fp32."""
        tensors = torch.stack([model[key] for model in self.models])
        base = None if self.base is None else self.base[key]
        vectors = tensors - base if self.method.on_task_vectors and base is not None else tensors
        values = self.values(key)
        if self.method.in_span(values):
            flat = vectors.double().flatten(1).numpy()
            combination = self.method.coefficients(flat @ flat.T, values, has_base=base is not None)
            total = torch.tensordot(torch.tensor(combination.models, dtype=torch.float64), tensors.double(), 1)
            return (total + (combination.base * base.double() if base is not None else 0.0)).float()
        generator = torch.Generator().manual_seed(seed)
        merged = self.method.tensor(vectors.clone(), values, base=base, generator=generator)
        return merged + base if self.method.on_task_vectors and base is not None else merged


def _settings(entry: dict[str, Any]) -> dict[str, Any]:
    def parsed(value: Any) -> Any:
        if isinstance(value, list):
            return [Filtered(**part) if isinstance(part, dict) else part for part in value]
        return value

    return {key: parsed(value) for key, value in entry.get("parameters", {}).items()}


def _load(place: Path, name: str) -> Tensors:
    return {key: tensor.float() for key, tensor in load_file(place / f"models/{name}/model.safetensors").items()}


@pytest.fixture
def golden(shared: Path) -> Path:
    place = shared / "golden/mergekit"
    if not place.is_dir():
        pytest.skip(f"no golden data at {place}")
    return place


@pytest.mark.parametrize("name", listed(random=False))
def test_kernel_is_mergekits(golden: Path, name: str) -> None:
    case = Case(golden, name)
    places = golden / f"ambiguous/{name}.safetensors"
    ambiguous = load_file(places) if places.is_file() else {}
    want = load_file(golden / f"outputs/{name}.safetensors")
    # bf16 outputs are fp32 rounded once; elsewhere the tolerances of the golden data's README
    units = {torch.float32: 2.0**-23 * (8 if case.method.name in LOOSE else 4), torch.bfloat16: 2.0**-8}
    for key, tensor in want.items():
        error = (case.merge(key).to(tensor.dtype).double() - tensor.double()).abs().flatten()
        if key in ambiguous:
            error[ambiguous[key].long()] = 0.0
        assert float(error.max()) <= units[tensor.dtype] * float(tensor.double().abs().max()), key


def test_every_method_of_mergekits_is_compared(golden: Path) -> None:
    compared = {entries()[name]["method"] for random in (True, False) for name in listed(random=random)}
    assert compared | ELSEWHERE | {"passthrough"} == {entry["method"] for entry in entries().values()}
    assert compared <= methods().keys()
    assert len(listed(random=False)) >= 40


@pytest.mark.parametrize("name", listed(random=True))
def test_random_kernel_is_mergekits_on_average(golden: Path, name: str) -> None:
    """Over as many seeds as mergekit was run with; means differ by as much as theirs do among themselves."""
    case = Case(golden, name)
    statistics = json.loads((golden / f"stats/{name}.json").read_text())
    assert case.base is not None
    single = len(case.models) == 1
    for key, want in statistics["tensors"].items():
        base, count = case.base[key].double(), statistics["seeds"]
        outputs = torch.stack([case.merge(key, seed).double() for seed in range(count)])
        spread = want["output_mean_std_over_seeds"] * (2 / count) ** 0.5
        assert abs(float(outputs.mean()) - want["output_mean"]) <= 6 * spread + 1e-5 * abs(want["output_mean"]), key
        if want["n"] < 400:
            continue
        norm = float((outputs - base).flatten(1).norm(dim=1).mean())
        assert norm == pytest.approx(want["output_minus_base_norm_mean"], rel=0.03), key
        assert float(outputs.std(dim=0).mean()) == pytest.approx(want["elementwise_std_mean"], rel=0.1), key
        if single and want.get("tested", 0) >= 0.9 * want["n"]:
            delta = case.models[0][key].double() - base
            kept = ((outputs - base)[:, delta.abs() > 1e-6] != 0).double().mean()
            assert float(kept) == pytest.approx(
                want["fraction_kept_mean"], abs=6 * want["fraction_kept_std"] * (2 / count) ** 0.5
            )
            ratio = ((outputs - base).abs().flatten(1).sum(dim=1) / delta.abs().sum()).numpy()
            spread = want["l1_ratio_std"] * (2 / count) ** 0.5
            assert ratio.mean() == pytest.approx(want["l1_ratio_mean"], abs=6 * spread + 1e-5), key
