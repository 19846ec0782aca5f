"""Coefficients by entropy: gradients beside finite differences, and what becomes of the result."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, MismatchedModels, NonFiniteWeights
from merging.data_driven.adamerging import AdaMerged, adamerge, entropy_gradient, task_vectors
from merging.data_driven.batches import Batch, padded
from merging.data_driven.models import load_causal_lm
from merging.data_driven.predictions import predict
from merging.offspring.span import Span
from merging.recipe.schema import parse_recipe

Inputs = Callable[..., torch.Tensor]
Networks = Callable[..., nn.Module]
MakeLlama = Callable[..., Path]
State = dict[str, torch.Tensor]


def entropy(model: nn.Module, weights: State, x: torch.Tensor) -> float:
    logits = torch.func.functional_call(model, weights, (x,))
    return float(torch.distributions.Categorical(logits=logits).entropy().mean())


def blended(base: State, models: Sequence[State], coefficients: np.ndarray, columns: dict[str, int]) -> State:
    """base + sum_k c_k (model_k - base), written out."""
    return {
        name: tensor
        + sum(
            float(row[columns[name]]) * (model[name] - tensor) for row, model in zip(coefficients, models, strict=True)
        )
        for name, tensor in base.items()
    }


@pytest.fixture
def family(network: Networks, inputs: Inputs) -> tuple[nn.Module, State, list[State], list[list[Batch]]]:
    """A network, a base and two models of it, and inputs of two tasks in batches."""
    base = network((5, 8, 3), seed=0).state_dict()
    models = [
        {
            name: tensor + 0.5 * inputs(*tensor.shape, seed=10 * task + place)
            for place, (name, tensor) in enumerate(base.items())
        }
        for task in (1, 2)
    ]
    data = [[{"x": inputs(16, 5, seed=100 + 10 * task + place)} for place in range(3)] for task in (1, 2)]
    return network((5, 8, 3), seed=99), base, models, data


@pytest.mark.parametrize(("by", "columns"), [("task", 1), ("layer", 2), ("tensor", 4)])
def test_the_gradient_is_that_of_finite_differences(family: Any, by: Any, columns: int) -> None:
    model, base, models, data = family
    vectors = task_vectors(model, base, models, by)
    assert len(vectors.labels) == columns
    point = torch.linspace(0.1, 0.6, 2 * columns, dtype=torch.float64).reshape(2, columns)
    batches = [stream[0] for stream in data]
    entropies, gradient = entropy_gradient(model, vectors, point, iter(batches))
    assert gradient.shape == (2, columns)

    def total(coefficients: np.ndarray) -> float:
        merged = blended(base, models, coefficients, dict(vectors.groups))
        return sum(entropy(model, merged, batch["x"]) for batch in batches)

    assert sum(entropies) == pytest.approx(total(point.numpy()), rel=1e-12)
    step = 1e-5
    for place in np.ndindex(2, columns):
        nudge = np.zeros((2, columns))
        nudge[place] = step
        difference = (total(point.numpy() + nudge) - total(point.numpy() - nudge)) / (2 * step)
        assert float(gradient[place]) == pytest.approx(difference, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("by", "columns"), [("task", 1), ("layer", 2), ("tensor", 4)])
def test_entropy_falls_and_is_reported_as_it_is(family: Any, by: Any, columns: int) -> None:
    model, base, models, data = family
    found = adamerge(model, base, models, data, by=by, steps=60, rate=1e-2)
    assert found.coefficients.shape == (2, columns)
    assert sum(found.after) < sum(found.before) - 0.01
    for coefficients, reported in ((np.full((2, columns), 0.3), found.before), (found.coefficients, found.after)):
        merged = blended(base, models, coefficients, dict(found.groups))
        want = [entropy(model, merged, torch.cat([batch["x"] for batch in stream])) for stream in data]
        np.testing.assert_allclose(reported, want, rtol=1e-10)
    assert ((found.coefficients >= 0.0) & (found.coefficients <= 1.0)).all()
    assert found.report() == {
        "coefficients": {label: found.coefficients[:, place].tolist() for place, label in enumerate(found.labels)},
        "entropy_before": list(found.before),
        "entropy_after": list(found.after),
    }


def test_more_coefficients_can_do_no_worse(family: Any) -> None:
    """With steps enough, since what is alike in all layers is one of the choices by layer."""
    model, base, models, data = family
    single = [[{"x": torch.cat([batch["x"] for batch in stream])}] for stream in data]
    ends = [sum(adamerge(model, base, models, single, by=by, steps=400, rate=1e-2).after) for by in ("task", "layer")]
    assert ends[1] <= ends[0] + 1e-3


def test_nothing_depends_on_chance_or_on_the_models_own_weights(family: Any, network: Networks) -> None:
    model, base, models, data = family
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = torch.get_rng_state()
    first = adamerge(model, base, models, data, steps=5)
    again = adamerge(model, base, models, data, steps=5)
    assert first.coefficients.tobytes() == again.coefficients.tobytes()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    other = adamerge(network((5, 8, 3), seed=4), base, models, data, steps=5)
    assert first.coefficients.tobytes() == other.coefficients.tobytes()


def test_models_in_another_order_have_their_coefficients_in_that_order(family: Any) -> None:
    model, base, models, data = family
    one = adamerge(model, base, models, data, steps=20, rate=1e-2)
    two = adamerge(model, base, models[::-1], data, steps=20, rate=1e-2)
    np.testing.assert_allclose(one.coefficients, two.coefficients[::-1], rtol=1e-8)


def test_without_steps_all_stays_at_the_start(family: Any) -> None:
    model, base, models, data = family
    found = adamerge(model, base, models, data, steps=0, start=0.4)
    assert (found.coefficients == 0.4).all()
    assert found.before == found.after


def test_coefficients_stay_within_their_bounds(family: Any) -> None:
    model, base, models, data = family
    found = adamerge(model, base, models, data, by="tensor", steps=50, rate=0.1, low=0.25, high=0.35)
    assert found.coefficients.min() == 0.25
    assert found.coefficients.max() == 0.35


# The result as a recipe


def test_a_recipe_gives_each_tensor_its_own_coefficients() -> None:
    """Names that are part of others: a filter is a substring."""
    names = ["layers.1.w", "layers.11.w", "w", "model.layers.1.w", "layers.1.w.more"]
    values = np.arange(10.0).reshape(2, 5) / 10
    found = AdaMerged(values, tuple(names), {name: place for place, name in enumerate(names)}, (1.0,), (0.5,))
    recipe = found.recipe("base", ["one", "two"])
    assert parse_recipe(recipe.to_dict()) == recipe
    span = Span(("base", "one", "two"), tuple(sorted(names)))
    genome = span.merge(recipe, {id: span.founder(id) for id in span.ids})
    for name, row in zip(span.names, genome.coefficients, strict=True):
        want = values[:, names.index(name)]
        np.testing.assert_allclose(row, [1 - want.sum(), *want], rtol=1e-15)


def test_one_coefficient_a_model_is_a_plain_number() -> None:
    found = AdaMerged(np.array([[0.25], [0.5]]), ("all",), {"a": 0, "b": 0}, (1.0,), (0.5,))
    entries = found.recipe("base", ["one", "two"]).to_dict()["models"]
    assert [entry["parameters"]["weight"] for entry in entries] == [0.25, 0.5]


@pytest.mark.parametrize(("by", "columns"), [("task", 1), ("layer", 4), ("tensor", 20)])
@pytest.mark.parametrize("tied", [True, False])
def test_the_recipe_makes_the_model_that_was_trained(make_llama: MakeLlama, by: Any, columns: int, tied: bool) -> None:
    """Folders of language models: the weights that the span algebra makes have the entropy that was reported."""
    folders = [make_llama(name, seed=seed, tied=tied) for seed, name in enumerate(("base", "one", "two"))]
    batches: list[Batch] = [padded([[5, 6, 7, 8, 9], [3, 4]])]
    checkpoints = [open_checkpoint(folder) for folder in folders]
    base, *models = checkpoints
    model = load_causal_lm(base)
    found = adamerge(model, base, models, [batches], by=by, steps=5, rate=0.02)
    assert found.coefficients.shape == (2, columns + (0 if tied or by == "task" else 1))
    assert sum(found.after) < sum(found.before)
    recipe = found.recipe(base.id, [one.id for one in models])
    span = Span(tuple(one.id for one in checkpoints), tuple(base.tensors))
    genome = span.merge(recipe, {id: span.founder(id) for id in span.ids})
    made = {
        name: sum(float(factor) * one.tensor(name) for factor, one in zip(row, checkpoints, strict=True))
        for name, row in zip(span.names, genome.coefficients, strict=True)
    }
    model.load_state_dict(made, strict=not tied)
    with torch.no_grad():
        assert float(predict(model, batches[0]).entropies.mean()) == pytest.approx(found.after[0], rel=1e-5)
    for one in checkpoints:
        one.close()


def test_a_tied_head_that_is_stored_has_the_coefficients_of_the_embedding(make_llama: MakeLlama) -> None:
    with open_checkpoint(make_llama("base")) as base, open_checkpoint(make_llama("one", seed=1)) as one:
        found = adamerge(load_causal_lm(base), base, [one], [[padded([[5, 6]])]], by="tensor", steps=1)
    assert found.groups["lm_head.weight"] == found.groups["model.embed_tokens.weight"]


# What is refused


@pytest.mark.parametrize(
    "setting", [{"by": "model"}, {"steps": -1}, {"rate": 0.0}, {"start": 2.0}, {"low": 0.5}, {"start": float("nan")}]
)
def test_settings_that_make_no_sense_are_refused(family: Any, setting: dict[str, Any]) -> None:
    model, base, models, data = family
    with pytest.raises(InvalidConfig, match="cannot be run"):
        adamerge(model, base, models, data, **setting)


def test_streams_must_be_there_hold_something_and_start_anew(family: Any) -> None:
    model, base, models, data = family
    with pytest.raises(InvalidConfig, match="0 models"):
        adamerge(model, base, [], data)
    with pytest.raises(InvalidConfig, match="0 streams"):
        adamerge(model, base, models, [])
    with pytest.raises(InvalidConfig, match="empty"):
        adamerge(model, base, models, [data[0], []])
    with pytest.raises(InvalidConfig, match="only once"):
        adamerge(model, base, models, [iter(data[0])])
    with pytest.raises(InvalidConfig, match="Batch 2"):
        adamerge(model, base, models, [[data[0][0], {"z": torch.zeros(1, 1)}]])


def test_batches_without_predictions_are_refused(bigrams: Networks) -> None:
    model = bigrams(4)
    nothing = padded([[1, 2]]) | {"labels": torch.full((1, 2), -100)}
    with pytest.raises(InvalidConfig, match="task 1 holds nothing to predict"):
        adamerge(model, model.state_dict(), [bigrams(4, seed=1).state_dict()], [[nothing]])


def test_models_that_do_not_fit_are_named(family: Any) -> None:
    model, base, models, data = family
    name = "layers.0.bias"
    lacking = {key: tensor for key, tensor in models[1].items() if key != name}
    with pytest.raises(MismatchedModels, match=r"'layers\.0\.bias', but model 1 has not"):
        adamerge(model, base, [models[0], lacking], data)
    with pytest.raises(MismatchedModels, match=r"'layers\.0\.bias', but the base has not"):
        adamerge(model, lacking, models, data)
    small = [{**one, name: torch.zeros(3)} for one in (base, *models)]
    with pytest.raises(MismatchedModels, match=r"'layers\.0\.bias' has shape \[3\], but the model makes it \[8\]"):
        adamerge(model, small[0], small[1:], data)


def test_nan_is_named_with_its_task_and_step(family: Any) -> None:
    model, base, models, data = family
    data[1][1] = {"x": data[1][1]["x"].clone().fill_(float("nan"))}
    with pytest.raises(NonFiniteWeights, match="task 2 at step 2"):
        adamerge(model, base, models, data, steps=3)
