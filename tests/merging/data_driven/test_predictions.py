"""Which of a model's outputs count as predictions."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kinship.errors import InvalidConfig
from merging.data_driven.predictions import Predictions, evaluating, predict


def test_a_language_model_predicts_the_next_token(bigrams: Callable[..., nn.Module]) -> None:
    model = bigrams(5)
    ids = torch.tensor([[1, 2, 3, 4], [2, 4, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    found = predict(model, {"input_ids": ids, "attention_mask": mask})
    assert found.labels is None
    assert torch.equal(found.logits, model.table.weight[[1, 2, 3, 2]])
    labelled = predict(model, {"input_ids": ids, "labels": ids.masked_fill(mask == 0, -100)})
    assert torch.equal(labelled.logits, found.logits)
    assert labelled.labels is not None
    assert labelled.labels.tolist() == [2, 3, 4, 4]


def test_padding_on_the_left_predicts_nothing(bigrams: Callable[..., nn.Module]) -> None:
    model = bigrams(5)
    ids, mask = torch.tensor([[0, 0, 3, 4]]), torch.tensor([[0, 0, 1, 1]])
    assert torch.equal(predict(model, {"input_ids": ids, "attention_mask": mask}).logits, model.table.weight[[3]])


def test_labels_choose_what_counts(bigrams: Callable[..., nn.Module]) -> None:
    model = bigrams(5)
    ids, labels = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[-100, -100, -100, 4]])
    assert torch.equal(predict(model, {"input_ids": ids, "labels": labels}).logits, model.table.weight[[3]])


def test_a_classifier_predicts_once_an_example(
    network: Callable[..., nn.Module], inputs: Callable[..., torch.Tensor]
) -> None:
    model, x = network((3, 4)), inputs(5, 3)
    found = predict(model, {"x": x, "labels": torch.tensor([0, -100, 1, 2, -100])})
    assert torch.equal(found.logits, model(x)[[0, 2, 3]])
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2]


def test_parameters_take_the_place_of_the_models_own(
    network: Callable[..., nn.Module], inputs: Callable[..., torch.Tensor]
) -> None:
    one, other, x = network((3, 4), seed=0), network((3, 4), seed=1), inputs(5, 3)
    found = predict(one, {"x": x}, parameters=dict(other.named_parameters()))
    assert torch.equal(found.logits, other(x))
    assert not torch.equal(found.logits, one(x))


def test_logits_are_widened() -> None:
    class Half(nn.Module):
        def forward(self, x: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=x)

    assert predict(Half(), {"x": torch.zeros(2, 3, dtype=torch.bfloat16)}).logits.dtype == torch.float32


def test_entropy_is_that_of_the_distribution(inputs: Callable[..., torch.Tensor]) -> None:
    logits = inputs(20, 7)
    want = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(Predictions(logits, None).entropies, want)


@pytest.mark.parametrize(
    "batch",
    [
        {"z": torch.zeros(2, 3, dtype=torch.float64)},
        {"x": torch.zeros(2, 4, dtype=torch.float64)},
        {"x": torch.zeros(2, 3, dtype=torch.int64)},
        {"x": torch.zeros(2, 3, dtype=torch.float64), "labels": torch.zeros(2, 1, dtype=torch.int64)},
        {"x": torch.zeros(2, 2, 2, 3, dtype=torch.float64)},
    ],
)
def test_a_batch_that_does_not_fit_is_named(network: Callable[..., nn.Module], batch: dict[str, torch.Tensor]) -> None:
    with pytest.raises(InvalidConfig, match="atch 7"):
        predict(network((3, 4)), batch, 7)


def test_a_token_beyond_the_vocabulary_is_named(bigrams: Callable[..., nn.Module]) -> None:
    with pytest.raises(InvalidConfig, match="Batch 3"):
        predict(bigrams(5), {"input_ids": torch.tensor([[1, 5]])}, 3)


def test_a_model_without_logits_is_refused() -> None:
    class Silent(nn.Module):
        def forward(self, x: torch.Tensor) -> None:
            return None

    with pytest.raises(InvalidConfig, match="Silent returned NoneType"):
        predict(Silent(), {"x": torch.zeros(1, 1)})


def test_a_model_is_left_as_it_was(network: Callable[..., nn.Module]) -> None:
    model = network((3, 4, 2)).train()
    model.layers[0].eval()
    model.layers[1].weight.requires_grad_(False)
    with evaluating(model, "cpu", gradients=True) as parameters:
        assert not any(module.training for module in model.modules())
        assert all(parameter.requires_grad for parameter in parameters.values())
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, True, False, True]
