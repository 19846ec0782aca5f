"""LiNeS beside its equation, layer by layer."""

import numpy as np
import pytest

from kinship.errors import InvalidConfig
from merging.methods.lines import lines
from merging.offspring.span import Span
from merging.recipe.parameters import Layers, value_at
from merging.recipe.schema import parse_recipe
from merging.registry import get_method

LAYERS = 5
NAMES = (
    "lm_head.weight",
    "model.embed_tokens.weight",
    *(f"model.layers.{n}.mlp.up_proj.weight" for n in range(LAYERS)),
)


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.8), (0.0, 1.0), (0.5, 0.0), (1.0, -0.4)])
def test_the_gradient_is_the_papers_line(alpha: float, beta: float) -> None:
    layers = Layers.of(NAMES)
    for name in NAMES:
        factor = value_at([alpha, alpha + beta], name, layers.position(name))
        layer = int(name.split(".")[2]) + 1 if "layers" in name else 1  # what is outside the layers goes with the first
        want = alpha + beta * (layer - 1) / (LAYERS - 1)
        got = lines([1.0, 0.5], lambda_=float(factor or 0.0))
        np.testing.assert_allclose([got.base, *got.models], [1 - 1.5 * want, want, 0.5 * want], atol=1e-12)


def test_a_recipe_scales_the_task_vectors_by_layer() -> None:
    span = Span(("base", "a", "b"), NAMES)
    recipe = parse_recipe(
        {
            "merge_method": "lines",
            "base_model": "base",
            "models": [{"model": "a"}, {"model": "b"}],
            "parameters": {"weight": 0.5, "lambda": [0.2, 1.0]},
        }
    )
    child = span.merge(recipe, {name: span.founder(name) for name in span.ids}).coefficients
    factors = [0.2, 0.2, 0.2, 0.4, 0.6, 0.8, 1.0]
    np.testing.assert_allclose(child, [[1 - f, 0.5 * f, 0.5 * f] for f in factors], atol=1e-12)


def test_lambda_must_be_said() -> None:
    span = Span(("base", "a"), NAMES)
    recipe = parse_recipe({"merge_method": "lines", "base_model": "base", "models": [{"model": "a"}]})
    with pytest.raises(InvalidConfig, match="'lambda'"):
        span.merge(recipe, {name: span.founder(name) for name in span.ids})


@pytest.mark.parametrize("weight", [[1.0], [0.3, 0.3, 0.4], [2.0, -1.0]])
def test_with_one_factor_for_all_layers_it_is_task_arithmetic(weight: list[float]) -> None:
    values = {"weight": weight, "lambda": 0.7}
    got = get_method("lines").coefficients(None, values, has_base=True)
    want = get_method("task_arithmetic").coefficients(None, values, has_base=True)
    np.testing.assert_allclose([got.base, *got.models], [want.base, *want.models], atol=1e-12)


def test_the_order_of_models_does_not_matter() -> None:
    first, second = lines([0.2, 0.9], lambda_=0.4), lines([0.9, 0.2], lambda_=0.4)
    assert first.models == second.models[::-1]
    assert first.base == pytest.approx(second.base)
