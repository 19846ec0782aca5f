"""Inner products of inputs beside the inputs themselves."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, NonFiniteWeights
from merging.data_driven.along import grams_along
from merging.data_driven.batches import padded
from merging.data_driven.grams import input_grams
from merging.data_driven.models import load_causal_lm

Inputs = Callable[..., torch.Tensor]
Networks = Callable[..., nn.Module]


def test_each_layer_has_the_products_of_its_own_inputs(network: Networks, inputs: Inputs) -> None:
    model, x = network((6, 5, 3)), inputs(40, 6)
    found = input_grams(model, [{"x": x[:7]}, {"x": x[7:]}])
    hidden = model.layers[0](x).tanh().detach()
    assert found.keys() == {"layers.0.weight", "layers.1.weight"}
    torch.testing.assert_close(found["layers.0.weight"], x.T @ x / 40, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found["layers.1.weight"], hidden.T @ hidden / 40, rtol=1e-12, atol=1e-14)


def test_fp32_products_are_good_to_fp32(network: Networks, inputs: Inputs) -> None:
    model, x = network((6, 3)).float(), inputs(5000, 6).float()
    found = input_grams(model, [{"x": part} for part in x.split(100)])["layers.0.weight"]
    want = (x.double().T @ x.double()) / 5000
    assert found.dtype == torch.float32
    assert (found - want).abs().max() < 1e-6 * want.abs().max()


def test_padding_is_left_out(make_llama: Callable[..., Path]) -> None:
    with open_checkpoint(make_llama("model")) as checkpoint:
        model = load_causal_lm(checkpoint, dtype=torch.float64)
    documents = [[5, 6, 7, 8, 9, 10], [3, 4], [11, 12, 13, 2]]
    together = input_grams(model, [padded(documents)])
    alone = input_grams(model, [padded([document]) for document in documents])
    assert together.settings == {"rows": "12"}
    assert together.keys() == alone.keys()
    for name, gram in alone.items():
        torch.testing.assert_close(together[name], gram, rtol=1e-9, atol=1e-14)


def test_layers_of_a_transformer(make_llama: Callable[..., Path]) -> None:
    """Every linear layer, of which q, k and v share their input; the head only where its weight is its own."""
    found = {}
    for tied in (True, False):
        with open_checkpoint(make_llama(f"tied-{tied}", tied=tied)) as checkpoint:
            found[tied] = input_grams(load_causal_lm(checkpoint), [padded([[5, 6, 7]])])
    projections = {name for name in found[True] if "proj" in name}
    assert len(projections) == 2 * 7
    assert found[True].keys() == projections
    assert found[False].keys() == projections | {"lm_head.weight"}
    q, k = (found[True][f"model.layers.1.self_attn.{name}_proj.weight"] for name in "qk")
    assert torch.equal(q, k)
    assert found[True]["model.layers.0.mlp.down_proj.weight"].shape == (24, 24)


def test_a_layer_used_twice_sees_both_inputs(inputs: Inputs) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4, dtype=torch.float64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layer(input=self.layer(x))
            return out

    model, x = Twice(), inputs(6, 4)
    both = torch.cat([x, model.layer(x).detach()])
    torch.testing.assert_close(input_grams(model, [{"x": x}])["layer.weight"], both.T @ both / 12)


def test_a_model_that_is_one_layer_and_one_that_is_not_reached(inputs: Inputs) -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Linear(4, 2, dtype=torch.float64)
            self.idle = nn.Linear(4, 2, dtype=torch.float64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.used(x)
            return out

    assert input_grams(Idle(), [{"x": inputs(3, 4)}]).keys() == {"used.weight"}
    assert input_grams(nn.Linear(4, 2, dtype=torch.float64), [{"input": inputs(3, 4)}]).keys() == {"weight"}


def test_no_hook_is_left_behind(network: Networks, inputs: Inputs) -> None:
    model = network((6, 3))
    input_grams(model, [{"x": inputs(2, 6)}])
    with pytest.raises(InvalidConfig, match="does not fit"):
        input_grams(model, [{"z": inputs(2, 6)}])
    assert not any(module._forward_pre_hooks for module in model.modules())


# What is refused


def test_a_model_without_linear_layers_is_refused(bigrams: Networks) -> None:
    with pytest.raises(InvalidConfig, match="Bigrams has no linear layer"):
        input_grams(bigrams(4), [padded([[1, 2]])])


def test_an_empty_stream_is_refused(network: Networks) -> None:
    with pytest.raises(InvalidConfig, match="empty"):
        input_grams(network((3, 2)), [])


def test_inputs_that_are_not_finite_are_named(network: Networks, inputs: Inputs) -> None:
    model, x = network((3, 4, 2)), inputs(2, 3)
    with torch.no_grad():
        model.layers[0].bias[0] = float("nan")
    switching = _Switching(network((3, 4, 2)), model)
    with pytest.raises(NonFiniteWeights, match=r"'layers\.1\.weight' on batch 2"):
        input_grams(switching, [{"x": x}, {"x": x}])


class _Switching(nn.Module):
    """The second batch meets damaged weights."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.layers = first.layers
        self._second = [second]
        self._calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._calls += 1
        if self._calls == 2:
            self.load_state_dict(self._second[0].state_dict())
        out: torch.Tensor = self.layers[1](self.layers[0](x).tanh())
        return out


def test_inputs_that_cannot_be_told_from_padding_are_refused(inputs: Inputs) -> None:
    class Pooled(nn.Module):
        """Its layer sees one row a document, as a pooled head or a routed expert does."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(8, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=self.head(self.embedding(input_ids)[:, 0]))

    def batch(*rows: list[int]) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in padded(list(rows)).items() if name != "labels"}

    assert input_grams(Pooled(), [batch([1, 2], [3, 4])]).keys() == {"head.weight"}
    with pytest.raises(InvalidConfig, match=r"'head\.weight' on batch 1"):
        input_grams(Pooled(), [batch([1, 2], [3])])


def test_layer_by_layer_too(bigrams: Callable[..., nn.Module], tmp_path: Path) -> None:
    """RegMean++ of a model without linear layers would be its average, and not say so."""
    batches = [{"input_ids": torch.tensor([[0, 1]])}]
    with pytest.raises(InvalidConfig, match="Bigrams has no linear layer"):
        grams_along([bigrams(3), bigrams(3)], [batches, batches], lambda name, vectors, grams: vectors[0], tmp_path)
