"""Recipes of combinations solved from distances, against float64 combinations made here."""

import math

import numpy as np
import pytest

from kinship.heritage.combinations import find_combinations
from kinship.heritage.distances import Geometry
from kinship.heritage.merges import RecoveredMerge, choose_merges
from tests.kinship.heritage.families import family_of

SIZES = (400, 300, 500)
NAMES = ("model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight")


def geometry(models: list[list[np.ndarray]]) -> Geometry:
    squares = np.array([[part @ part for part in model] for model in models]).T
    apart = np.array([[[(a - b) @ (a - b) for a, b in zip(x, y, strict=True)] for y in models] for x in models])
    return Geometry(NAMES, np.array(SIZES, dtype=float), squares, apart.transpose(2, 0, 1))


@pytest.fixture
def founders() -> list[list[np.ndarray]]:
    random = np.random.default_rng(0)
    base = [random.normal(size=size) for size in SIZES]
    return [base, *([part + 0.2 * random.normal(size=len(part)) for part in base] for _ in range(4))]


def recovered(models: list[list[np.ndarray]]) -> RecoveredMerge:
    family = family_of(geometry=geometry(models))
    found = find_combinations(family)
    merges = choose_merges(family, found, [None] * len(found))
    assert [merge.child for merge in merges] == [len(models) - 1]
    return merges[0]


@pytest.mark.parametrize("weights", [{1: 0.36, 3: 0.64}, {1: 0.2, 2: 0.5, 4: 0.3}])
def test_a_linear_merge_is_found_with_its_weights(founders: list[list[np.ndarray]], weights: dict[int, float]) -> None:
    child = [sum(w * founders[model][tensor] for model, w in weights.items()) for tensor in range(3)]
    merge = recovered([*founders, child])
    assert merge.recipe.method == "linear"
    assert dict(zip(merge.parents, merge.weights, strict=True)) == pytest.approx(weights, abs=1e-6)


def test_weights_need_not_add_up_to_one(founders: list[list[np.ndarray]]) -> None:
    weights = {1: 0.3, 2: 0.3, 4: 0.6}
    child = [sum(w * founders[model][tensor] for model, w in weights.items()) for tensor in range(3)]
    merge = recovered([*founders, child])
    assert (merge.recipe.method, merge.recipe.parameters) == ("linear", {"normalize": False})
    assert dict(zip(merge.parents, merge.weights, strict=True)) == pytest.approx(weights, abs=1e-6)


def test_weights_by_layer_are_told(founders: list[list[np.ndarray]]) -> None:
    weights = [{1: 0.2, 2: 0.5, 4: 0.3}, {1: 0.6, 2: 0.1, 4: 0.3}, {1: 0.25, 2: 0.25, 4: 0.5}]
    child = [sum(w * founders[model][tensor] for model, w in weights[tensor].items()) for tensor in range(3)]
    merge = recovered([*founders, child])
    assert merge.recipe.method == "linear"
    for layer, wanted in enumerate(weights):
        told = merge.recipe.parameters["weights_by_layer"][f"layer {layer}"]
        assert {int(parent): weight for parent, weight in told.items()} == pytest.approx(wanted, abs=1e-5)


def test_model_stock_is_told_by_its_angles(founders: list[list[np.ndarray]]) -> None:
    random = np.random.default_rng(1)
    child = []
    for tensor in range(3):
        alike = 0.2 * random.normal(size=SIZES[tensor])
        for model in (1, 2, 3):
            founders[model][tensor] += alike
        changes = [founders[model][tensor] - founders[0][tensor] for model in (1, 2, 3)]
        pairs = [(0, 1), (0, 2), (1, 2)]
        cosine = np.mean(
            [changes[i] @ changes[j] / np.linalg.norm(changes[i]) / np.linalg.norm(changes[j]) for i, j in pairs]
        )
        share = 3 * cosine / (1 + 2 * cosine)
        child.append(founders[0][tensor] + share * np.mean(changes, axis=0))
    merge = recovered([*founders, child])
    assert (merge.recipe.method, merge.recipe.parameters) == ("model_stock", {"base": "0"})


def test_task_arithmetic_is_told_by_its_negative_base(founders: list[list[np.ndarray]]) -> None:
    child = [
        founders[0][t] + 0.9 * (founders[1][t] - founders[0][t]) + 0.6 * (founders[2][t] - founders[0][t])
        for t in range(3)
    ]
    merge = recovered([*founders, child])
    assert merge.recipe.method == "task_arithmetic"
    assert merge.recipe.base == 0
    assert merge.recipe.parameters["lambda_times_weight"] == pytest.approx({"1": 0.9, "2": 0.6}, abs=1e-5)


def test_slerp_gives_its_t_by_layer(founders: list[list[np.ndarray]]) -> None:
    wanted = (0.2, 0.5, 0.8)
    child = []
    for t, a, b in zip(wanted, founders[1], founders[2], strict=True):
        angle = math.acos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        child.append((math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle))
    merge = recovered([*founders, child])
    assert merge.recipe.method == "slerp"
    told = list(merge.recipe.parameters["t_by_layer"].values())
    assert (told if merge.parents[0] == 1 else [1 - t for t in told]) == pytest.approx(wanted, abs=1e-5)


def test_passthrough_names_whose_layer_is_whose(founders: list[list[np.ndarray]]) -> None:
    child = [founders[1][0], founders[1][1], founders[3][2]]
    merge = recovered([*founders, child])
    assert merge.recipe.method == "passthrough"
    assert merge.recipe.parameters["tensors"][str(3)] == [NAMES[2]]


def test_fine_tunes_are_no_merges(founders: list[list[np.ndarray]]) -> None:
    assert not find_combinations(family_of(geometry=geometry(founders)))
