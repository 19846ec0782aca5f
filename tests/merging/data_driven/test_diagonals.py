"""Fisher diagonals beside closed forms, and beside gradients taken another way."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, NonFiniteWeights
from merging.data_driven.batches import Batch, padded
from merging.data_driven.diagonals import fisher_diagonal
from merging.data_driven.models import load_causal_lm

Inputs = Callable[..., torch.Tensor]
Networks = Callable[..., nn.Module]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def softmax_regression(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """E_y (d log p_y / d W_cj)^2 = p_c (1 - p_c) x_j^2, and without x_j for the bias."""
    chances = model(x).detach().softmax(dim=1)
    spread = chances * (1 - chances)
    return {
        "layers.0.weight": (spread.T @ x.square()) / len(x),
        "layers.0.bias": spread.mean(dim=0),
    }


def test_exact_labels_give_the_closed_form(network: Networks, inputs: Inputs) -> None:
    model, x = network((6, 4)), inputs(30, 6)
    found = fisher_diagonal(model, [{"x": x[:20]}, {"x": x[20:]}], labels="exact")
    want = softmax_regression(model, x)
    assert found.keys() == want.keys()
    for name, fisher in want.items():
        torch.testing.assert_close(found[name], fisher, rtol=1e-12, atol=0)


def test_sampled_labels_come_near_the_closed_form(network: Networks, inputs: Inputs) -> None:
    model, x = network((3, 4)), inputs(5, 3)
    repeated: list[Batch] = [{"x": x}] * 400
    found = fisher_diagonal(model, repeated, generator=seeded())
    for name, fisher in softmax_regression(model, x).items():
        torch.testing.assert_close(found[name], fisher, rtol=0.15, atol=0.02)


def test_given_labels_give_the_mean_of_squared_gradients(network: Networks, inputs: Inputs) -> None:
    model, x = network((5, 8, 3)), inputs(12, 5)
    labels = torch.arange(12) % 3

    def loss(parameters: dict[str, torch.Tensor], row: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(functional_call(model, parameters, (row[None],)), label[None])

    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, labels)
    found = fisher_diagonal(model, [{"x": x, "labels": labels}], labels="given")
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient.square().mean(dim=0), rtol=1e-10, atol=1e-14)


def bigram_fisher(model: nn.Module, contexts: list[int]) -> torch.Tensor:
    """Each prediction after token v adds p_c (1 - p_c) to the entries of row v."""
    chances = model.table.weight.detach().softmax(dim=1)
    fisher = torch.zeros_like(chances)
    for token in contexts:
        fisher[token] += chances[token] * (1 - chances[token])
    return fisher / len(contexts)


def test_the_tokens_of_a_document_are_drawn_one_by_one(bigrams: Networks) -> None:
    """A token that comes twice gives a row two gradients: their product must vanish in the mean."""
    model = bigrams(4)
    batch = padded([[1, 1, 2, 1, 3], [2, 0, 3]])
    found = fisher_diagonal(model, [batch] * 500, generator=seeded())["table.weight"]
    torch.testing.assert_close(found, bigram_fisher(model, [1, 1, 2, 1, 2, 0]), rtol=0.2, atol=0.01)


def test_with_one_prediction_a_document_language_models_have_exact_labels(bigrams: Networks) -> None:
    model = bigrams(4)
    found = fisher_diagonal(model, [padded([[1, 2], [3, 0], [1, 1]])], labels="exact")["table.weight"]
    torch.testing.assert_close(found, bigram_fisher(model, [1, 3, 1]), rtol=1e-12, atol=0)


def test_batches_and_padding_change_nothing(make_llama: Callable[..., Path]) -> None:
    with open_checkpoint(make_llama("model")) as checkpoint:
        model = load_causal_lm(checkpoint, dtype=torch.float64)
    documents = [[5, 6, 7, 8, 9, 10], [3, 4], [11, 12, 13, 2]]
    together = fisher_diagonal(model, [padded(documents)], labels="given")
    alone = fisher_diagonal(model, [padded([document]) for document in documents], labels="given")
    assert together.settings == alone.settings == {"labels": "given", "predictions": "9"}
    assert together.keys() == alone.keys() == dict(model.named_parameters()).keys()
    for name, fisher in alone.items():
        torch.testing.assert_close(together[name], fisher, rtol=1e-8, atol=1e-18)


def test_one_seed_gives_the_same_bytes(network: Networks, inputs: Inputs) -> None:
    model, stream = network((5, 8, 3)), [{"x": inputs(7, 5)}]
    first, again, other = (fisher_diagonal(model, stream, generator=seeded(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert first.settings == {"labels": "sampled", "predictions": "7", "seed": "1"}


def test_the_global_random_state_is_not_touched(network: Networks, inputs: Inputs) -> None:
    model = network((5, 3))
    before = torch.get_rng_state()
    fisher_diagonal(model, [{"x": inputs(7, 5)}], generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_half_precision_is_added_up_in_fp32(network: Networks, inputs: Inputs) -> None:
    model, x = network((6, 4)), inputs(10, 6)
    want = fisher_diagonal(model, [{"x": x}], labels="exact")
    half = fisher_diagonal(model.to(torch.bfloat16), [{"x": x.to(torch.bfloat16)}], labels="exact")
    for name in want:
        assert half[name].dtype == torch.float32
        torch.testing.assert_close(half[name].double(), want[name], rtol=0.1, atol=0.01)


def test_a_parameter_that_no_prediction_depends_on_has_none(network: Networks, inputs: Inputs) -> None:
    model = network((5, 3))
    model.register_parameter("idle", nn.Parameter(torch.zeros(2)))
    assert "idle" not in fisher_diagonal(model, [{"x": inputs(2, 5)}], labels="exact")


# What is refused


def test_streams_without_anything_to_predict_are_refused(bigrams: Networks) -> None:
    with pytest.raises(InvalidConfig, match="empty"):
        fisher_diagonal(bigrams(4), [], labels="given")
    ignored = padded([[1, 2]]) | {"labels": torch.full((1, 2), -100)}
    with pytest.raises(InvalidConfig, match="nothing to predict"):
        fisher_diagonal(bigrams(4), [ignored], labels="given")


def test_labels_must_be_there_and_be_classes(network: Networks, inputs: Inputs) -> None:
    model, x = network((5, 3)), inputs(2, 5)
    with pytest.raises(InvalidConfig, match="Batch 1 has no labels"):
        fisher_diagonal(model, [{"x": x}], labels="given")
    with pytest.raises(InvalidConfig, match="beyond the model's 3 classes"):
        fisher_diagonal(model, [{"x": x, "labels": torch.tensor([0, 3])}], labels="given")
    with pytest.raises(InvalidConfig, match="generator"):
        fisher_diagonal(model, [{"x": x}], labels="sampled")
    with pytest.raises(InvalidConfig, match="'true'"):
        fisher_diagonal(model, [{"x": x}], labels="true")  # type: ignore[arg-type]


def test_exact_labels_are_refused_for_many_predictions_an_example(bigrams: Networks) -> None:
    with pytest.raises(InvalidConfig, match="Batch 1 has 2 predictions"):
        fisher_diagonal(bigrams(4), [padded([[1, 2, 3]])], labels="exact")


def test_nan_in_the_predictions_is_named(network: Networks, inputs: Inputs) -> None:
    model = network((5, 3))
    with torch.no_grad():
        model.layers[0].weight[1, 1] = float("nan")
    with pytest.raises(NonFiniteWeights, match="batch 1"):
        fisher_diagonal(model, [{"x": inputs(2, 5)}], labels="exact")


def test_a_gradient_that_is_not_finite_is_named(network: Networks, inputs: Inputs) -> None:
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network((5, 3))
            self.scale = nn.Parameter(torch.zeros((), dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.inner(x) + self.scale.sqrt() * x[:, :3]
            return logits

    with pytest.raises(NonFiniteWeights, match="'scale' on batch 1"):
        fisher_diagonal(Steep(), [{"x": inputs(2, 5)}], labels="exact")


def test_an_unknown_device_is_refused(network: Networks, inputs: Inputs) -> None:
    with pytest.raises(InvalidConfig, match="tpu"):
        fisher_diagonal(network((5, 3)), [{"x": inputs(2, 5)}], labels="exact", device="tpu")
