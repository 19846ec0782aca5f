"""Merges that mergekit made: method, parents and parameters, from weights alone."""

from pathlib import Path
from typing import Any

import pytest

from kinship.heritage import recover
from kinship.heritage.pedigree import Edge

TUNED = {"ll-ft1", "ll-ft2", "ll-ft3", "ll-ft4"}
CASES: dict[str, tuple[str, dict[str, float]]] = {
    "linear-equal": ("linear", {"ll-ft1": 1 / 3, "ll-ft2": 1 / 3, "ll-ft3": 1 / 3}),
    "linear-unequal": (
        "linear",
        {"ll-ft1": 0.2 / 1.75, "ll-ft2": 0.5 / 1.75, "ll-ft3": 0.9 / 1.75, "ll-ft4": 0.15 / 1.75},
    ),
    "linear-unequal.bf16": ("linear", {"ll-ft1": 0.1143, "ll-ft2": 0.2857, "ll-ft3": 0.5143, "ll-ft4": 0.0857}),
    "linear-nonorm": ("linear", {"ll-ft1": 0.3, "ll-ft2": 0.3, "ll-ft3": 0.6}),
    "linear-negative": ("linear", {"ll-ft1": 1.5, "ll-ft2": -0.5}),
    "task-arithmetic": ("task_arithmetic", {"ll-ft1": 0.5, "ll-ft2": 0.3, "ll-ft3": 0.7}),
    "task-arithmetic-lambda": ("task_arithmetic", {"ll-ft1": 0.7, "ll-ft2": -0.28, "ll-ft3": 0.42, "ll-ft4": 0.56}),
    "task-arithmetic-lambda.bf16": (
        "task_arithmetic",
        {"ll-ft1": 0.7, "ll-ft2": -0.28, "ll-ft3": 0.42, "ll-ft4": 0.56},
    ),
}


def edges_to(shared: Path, name: str, members: set[str]) -> dict[str, Edge]:
    """Edges to the output ``name`` by parent, among ``members``; bf16 outputs have bf16 inputs."""
    golden = shared / "golden" / "mergekit"
    suffix = "-bf16" if ".bf16" in name else ""
    child = golden / "outputs" / f"{name}.safetensors"
    heritage = recover([*(golden / "models" / f"{one}{suffix}" for one in sorted(members)), child])
    return {Path(edge.parent).name.removesuffix("-bf16"): edge for edge in heritage.edges if edge.child == str(child)}


def parameter(edges: dict[str, Edge], key: str) -> Any:
    values = [edge.evidence[key] for edge in edges.values()]
    assert all(value == values[0] for value in values)
    return values[0]


@pytest.mark.parametrize("name", CASES)
def test_weights(shared: Path, name: str) -> None:
    method, weights = CASES[name]
    edges = edges_to(shared, name, {"ll-base"} | TUNED)
    assert {edge.evidence["method"] for edge in edges.values()} == {method}
    within = 2e-3 if ".bf16" in name else 2e-6
    assert {parent: edge.evidence["weight"] for parent, edge in edges.items()} == pytest.approx(weights, abs=within)


def test_weights_as_gradients(shared: Path) -> None:
    edges = edges_to(shared, "linear-gradient", {"ll-base"} | TUNED)
    told = {
        layer: {Path(parent).name: weight for parent, weight in weights.items()}
        for layer, weights in parameter(edges, "weights_by_layer").items()
    }
    for layer, first in enumerate((0.0, 1 / 3, 2 / 3, 1.0)):
        second = (1.0, 1 - 0.8 * 2 / 3, 0.2 * (1 - 1 / 3), 0.0)[layer]
        total = first + second + 0.25
        wanted = {"ll-ft1": first / total, "ll-ft2": second / total, "ll-ft3": 0.25 / total}
        assert told[f"layer {layer}"] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("name", ["slerp-kinship", "slerp-kinship-ft", "slerp-kinship.bf16"])
def test_slerp_by_module(shared: Path, name: str) -> None:
    edges = edges_to(shared, name, {"ll-base", "ll-ft1", "ll-ft2"} | ({"ll-far"} if "ft" not in name else set()))
    assert {edge.evidence["method"] for edge in edges.values()} == {"slerp"}
    told = parameter(edges, "t_by_layer_and_module")
    first = next(iter(edges.values())).evidence["weights"]
    turned = Path(next(iter(first))).name.removesuffix("-bf16") != "ll-ft1"
    attention, mlp = (0, 0.5 - 0.2 / 3, 0.3 + 0.8 / 3, 1), (1, 0.5 + 0.2 / 3, 0.7 - 0.8 / 3, 0)
    for layer in range(4):
        for module, wanted in (("attention v", attention[layer]), ("mlp", mlp[layer])):
            got = told[f"layer {layer}, {module}"]
            assert (1 - got if turned else got) == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize(
    ("name", "method"),
    [("ties-d20", "ties"), ("breadcrumbs", "trimmed"), ("breadcrumbs-ties", "trimmed"), ("model-stock", "model_stock"),
     ("arcee-fusion", "selection"), ("karcher", "combination"), ("nuslerp-base", "combination")],
)  # fmt: skip
def test_other_methods(shared: Path, name: str, method: str) -> None:
    edges = edges_to(shared, name, {"ll-base"} | TUNED | ({"ll-far"} if name == "karcher" else set()))
    assert {edge.evidence["method"] for edge in edges.values()} == {method}
