"""A family stored in bf16 throughout, as on the Hub: merges, copies and fine-tunes among it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kinship.heritage import recover
from kinship.heritage.pedigree import Edge
from tests.kinship.heritage.growth import Shape, initial
from tests.kinship.heritage.recipes import State, linear, quantise, slerp, task_arithmetic, ties


@pytest.fixture(scope="module")
def states() -> dict[str, State]:
    """Three steps of 5 % from a base, and one of rank 4."""
    generator = torch.Generator().manual_seed(0)
    base = halved(initial(Shape(hidden=64, inner=144), generator))
    made = {"base": base}
    for name in ("a", "b", "c"):
        made[name] = halved(
            {
                key: t + 0.05 * t.square().mean().sqrt() * torch.randn(t.shape, generator=generator)
                for key, t in base.items()
            }
        )
    adapted = {}
    for key, t in base.items():
        step = torch.zeros_like(t)
        if "_proj" in key:
            left, right = (torch.randn(size, 4, generator=generator) for size in t.shape)
            step = 0.05 * t.square().mean().sqrt() * left @ right.T / 2
        adapted[key] = t + step
    return made | {"lora": halved(adapted)}


def halved(state: State) -> State:
    return {key: tensor.bfloat16().float() for key, tensor in state.items()}


def edges_to(folder: Path, states: dict[str, State], child: State | None, names: str) -> list[Edge]:
    members = {name: states[name] for name in names.split()} | ({"child": child} if child is not None else {})
    for name, state in members.items():
        save_file({key: tensor.bfloat16() for key, tensor in state.items()}, folder / f"{name}.safetensors")
    return [
        edge for edge in recover([folder / f"{name}.safetensors" for name in members]).edges if "child" in edge.child
    ]


def by_parent(edges: list[Edge], key: str) -> dict[str, float]:
    return {Path(edge.parent).stem: edge.evidence[key] for edge in edges}


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.37, 0.63), (1.5, -0.5), (0.2, 0.5, 0.3)])
def test_a_linear_merge(tmp_path: Path, states: dict[str, State], weights: tuple[float, ...]) -> None:
    parents = ["a", "b", "c"][: len(weights)]
    edges = edges_to(tmp_path, states, linear([states[name] for name in parents], list(weights)), "base a b c")
    assert {edge.evidence["method"] for edge in edges} == {"linear"}
    assert by_parent(edges, "weight") == pytest.approx(dict(zip(parents, weights, strict=True)), abs=1e-3)
    assert min(by_parent(edges, "exact").values()) > 0.99


def test_task_arithmetic(tmp_path: Path, states: dict[str, State]) -> None:
    child = task_arithmetic(states["base"], [states["a"], states["b"]], [1.0, 0.5], 0.83)
    edges = edges_to(tmp_path, states, child, "base a b c")
    assert {edge.evidence["method"] for edge in edges} == {"task_arithmetic"}
    assert by_parent(edges, "weight") == pytest.approx({"a": 0.83, "b": 0.415}, abs=2e-3)


def test_slerp_in_its_linear_branch(tmp_path: Path, states: dict[str, State]) -> None:
    edges = edges_to(tmp_path, states, slerp(states["a"], states["b"], lambda name: 0.3), "base a b c")
    assert by_parent(edges, "weight") == pytest.approx({"a": 0.7, "b": 0.3}, abs=2e-3)


def test_ties(tmp_path: Path, states: dict[str, State]) -> None:
    child = ties(states["base"], [states["a"], states["b"]], [1.0, 1.0], 0.5, 0.8)
    edges = edges_to(tmp_path, states, child, "base a b c")
    assert {edge.evidence["method"] for edge in edges} == {"ties"}
    assert by_parent(edges, "factor") == pytest.approx({"a": 0.8, "b": 0.8}, abs=0.01)


def test_integers_and_back(tmp_path: Path, states: dict[str, State]) -> None:
    edges = edges_to(tmp_path, states, quantise(states["a"], 4, "row"), "base a b c")
    assert [(Path(edge.parent).stem, edge.kind) for edge in edges] == [("a", "quantized")]


def test_a_duplicate(tmp_path: Path, states: dict[str, State]) -> None:
    edges = edges_to(tmp_path, states, states["b"], "base a b c")
    assert [(Path(edge.parent).stem, edge.kind) for edge in edges] == [("b", "duplicate")]


def test_an_adapter_keeps_its_rank_and_a_full_step_is_none(tmp_path: Path, states: dict[str, State]) -> None:
    for name in ("base", "lora", "a"):
        save_file({key: t.bfloat16() for key, t in states[name].items()}, tmp_path / f"{name}.safetensors")
    for name, kind in (("lora", "lora"), ("a", "finetune")):
        base = tmp_path / "base.safetensors"
        edges = recover([base, tmp_path / f"{name}.safetensors"], base).edges
        assert [edge.kind for edge in edges] == [kind]
        assert kind == "finetune" or edges[0].evidence["rank"] == 4
