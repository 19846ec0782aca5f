"""mergekit 0.1.5's rules for filters and gradients, worked by hand."""

from typing import Any

import pytest

from kinship.checkpoints.tensor_names import layer_index
from merging.recipe.parameters import Layers, gradient, resolve, value_at
from merging.recipe.schema import Filtered, Setting

KINSHIP_ATTENTION = [0.0, 0.5, 0.3, 0.7, 1.0]


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("model.layers.12.mlp.up_proj.weight", 12),
        ("layers.3.norm.weight", 3),
        ("transformer.h.0.attn.c_attn.weight", 0),
        ("gpt_neox.layers.5.attention.bias", 5),
        ("bert.encoder.layer.7.output.dense.weight", 7),
        ("backbone.blocks.2.weight", 2),
        ("model.embed_tokens.weight", None),
        ("lm_head.weight", None),
        ("model.norm.weight", None),
        ("players.3.weight", None),
    ],
)
def test_layer_of_a_tensor(name: str, index: int | None) -> None:
    assert layer_index(name) == index


def test_positions_run_from_zero_to_one() -> None:
    names = [f"model.layers.{index}.mlp.weight" for index in range(5)]
    layers = Layers.of([*names, "model.norm.weight"])
    assert [layers.position(name) for name in names] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_tensors_outside_the_layers_are_at_the_first_element() -> None:
    layers = Layers.of(["model.layers.9.x", "model.norm.weight"])
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert gradient([0.25, 0.75], layers.position(name)) == 0.25


def test_the_only_layer_is_at_the_last_element() -> None:
    layers = Layers.of(["model.layers.0.x", "lm_head.weight"])
    assert gradient([0.25, 0.5, 0.75], layers.position("model.layers.0.x")) == 0.75
    assert layers.position("lm_head.weight") == 0.0
    assert Layers.of(["w"]).position("w") == 0.0


@pytest.mark.parametrize(
    ("values", "position", "want"),
    [
        (KINSHIP_ATTENTION, 0.0, 0.0),
        (KINSHIP_ATTENTION, 0.25, 0.5),
        (KINSHIP_ATTENTION, 0.125, 0.25),
        (KINSHIP_ATTENTION, 0.375, 0.4),
        (KINSHIP_ATTENTION, 1 / 3, 0.5 + (4 / 3 - 1) * (0.3 - 0.5)),
        (KINSHIP_ATTENTION, 0.9, 0.88),
        (KINSHIP_ATTENTION, 1.0, 1.0),
        ([2.0, -1.0], 2 / 3, 0.0),
        ([0.3], 0.0, 0.3),
        ([0.3], 1.0, 0.3),
    ],
)
def test_numbers_are_interpolated(values: list[float], position: float, want: float) -> None:
    assert gradient(values, position) == pytest.approx(want)


@pytest.mark.parametrize(("position", "want"), [(0.0, True), (0.49, True), (0.5, False), (0.99, False), (1.0, True)])
def test_booleans_are_stepped_through(position: float, want: bool) -> None:
    assert gradient([True, False, True], position) is want


def filtered(*pairs: tuple[str | None, Any]) -> list[Filtered]:
    return [Filtered(filter=text, value=value) for text, value in pairs]


NAME = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("setting", "want"),
    [
        (0.5, 0.5),
        (True, True),
        ([0.0, 1.0], 0.25),
        (filtered(("self_attn", 0.1), ("mlp", 0.2), (None, 0.3)), 0.1),
        (filtered(("mlp", 0.2), (None, 0.3)), 0.3),
        (filtered(("mlp", 0.2), ("*", 0.3)), 0.3),
        (filtered((None, 0.3), ("self_attn", 0.1)), 0.3),  # the first match wins
        (filtered(("q_proj", 0.4), ("self_attn", 0.1)), 0.4),
        (filtered(("self_attn", [0.0, 0.8]), ("*", 1.0)), 0.2),
        (filtered(("mlp", 0.2)), None),
        (filtered(("self.attn", 0.2)), None),  # a substring, not a pattern
        (filtered(("layers.1.", 0.9)), 0.9),
    ],
)
def test_value_at(setting: Setting, want: float | bool | None) -> None:
    assert value_at(setting, NAME, 0.25) == want


def test_narrow_scopes_win_and_wider_ones_catch_what_their_filters_miss() -> None:
    model: dict[str, Setting] = {"weight": filtered(("mlp", 0.2))}
    everyone: dict[str, Setting] = {"weight": 0.7}
    assert resolve([model, everyone], "weight", "model.layers.0.mlp.up_proj.weight", 0.0) == 0.2
    assert resolve([model, everyone], "weight", NAME, 0.0) == 0.7
    assert resolve([model, {}], "weight", NAME, 0.0) is None
    assert resolve([model, everyone], "density", NAME, 0.0) is None


def test_values_of_zero_and_false_count_as_given() -> None:
    assert resolve([{"weight": 0.0}, {"weight": 0.7}], "weight", NAME, 0.0) == 0.0
    assert resolve([{"normalize": False}, {"normalize": True}], "normalize", NAME, 0.0) is False
