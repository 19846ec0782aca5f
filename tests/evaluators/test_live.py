from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluators.live import LiveModel, require_model_folder
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import MismatchedModels, UnsupportedCheckpoint
from merging.offspring.span import Genome
from merging.offspring.weights import materialise
from tests.evaluators.conftest import Tiny, write_llama

IDS = torch.tensor([[1, 5, 6, 7, 4]])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def given(tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    return iter(tensors.items())


def test_loaded_weights_answer_as_transformers_does(tiny: Tiny, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    other = write_llama(tmp_path / "other", seed=7)
    live = LiveModel(open_checkpoint(tiny.model))
    answers = []
    for folder in (tiny.model, other, tiny.model):
        live.load(given(weights(folder)))
        answers.append(live.model(IDS).logits)
        expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(IDS).logits
        assert torch.equal(answers[-1], expected)
    assert not torch.equal(answers[0], answers[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_offspring_are_made_in_the_model_itself(tiny: Tiny, tmp_path: Path, dtype: torch.dtype) -> None:
    models = [open_checkpoint(folder) for folder in (tiny.model, write_llama(tmp_path / "other", seed=7))]
    names = tuple(models[0].tensors)
    genome = Genome(np.tile([0.25, 0.75], (len(names), 1)))
    live, copied = (LiveModel(models[0], dtype=dtype) for _ in range(2))
    live.load(materialise(genome, names, models))
    copied.load(given({name: tensor.clone() for name, tensor in materialise(genome, names, models)}))
    for name, weight in live.model.named_parameters():
        assert torch.equal(weight, copied.model.get_parameter(name)), name


def test_tied_embeddings_need_one_tensor_only(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = write_llama(tmp_path / "tied", seed=3, tie=True)
    assert "lm_head.weight" not in weights(folder)
    live = LiveModel(open_checkpoint(folder))
    live.load(given(weights(folder)))
    expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(IDS).logits
    assert torch.equal(live.model(IDS).logits, expected)
    assert torch.equal(live.model.lm_head.weight, weights(folder)["model.embed_tokens.weight"])


def test_tied_embeddings_may_be_stored_twice(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "tied", seed=3, tie=True)
    tensors = weights(folder)
    live = LiveModel(open_checkpoint(folder))
    live.load(given(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    assert torch.equal(live.model.lm_head.weight, tensors["model.embed_tokens.weight"])


def test_an_untied_head_is_not_the_embedding(tiny: Tiny) -> None:
    live = LiveModel(open_checkpoint(tiny.model))
    live.load(given(weights(tiny.model)))
    assert torch.equal(live.model.lm_head.weight, weights(tiny.model)["lm_head.weight"])
    assert not torch.equal(live.model.lm_head.weight, live.model.model.embed_tokens.weight)


def test_a_head_that_differs_from_the_embedding_the_config_ties_it_to_is_loaded(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = write_llama(tmp_path / "tied", seed=3, tie=True)
    tensors = weights(folder)
    own = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].flip(0)}
    save_file(own, folder / "model.safetensors", metadata={"format": "pt"})
    live = LiveModel(open_checkpoint(folder))
    live.load(given(own))
    expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(IDS).logits
    assert torch.equal(live.model(IDS).logits, expected)


@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight", "model.layers.1.mlp.up_proj.weight"])
def test_a_missing_tensor_is_refused(tiny: Tiny, name: str) -> None:
    tensors = weights(tiny.model)
    del tensors[name]
    with pytest.raises(MismatchedModels, match=name):
        LiveModel(open_checkpoint(tiny.model)).load(given(tensors))


def test_an_extra_tensor_is_refused(tiny: Tiny) -> None:
    tensors = weights(tiny.model) | {"model.layers.9.mlp.up_proj.weight": torch.zeros(2)}
    with pytest.raises(MismatchedModels, match=r"layers\.9\.mlp"):
        LiveModel(open_checkpoint(tiny.model)).load(given(tensors))


@pytest.mark.parametrize("shape", [(1,), (17,), (16, 1)])
def test_another_shape_is_refused(tiny: Tiny, shape: tuple[int, ...]) -> None:
    # One of (1,) would be spread over the parameter without a word.
    tensors = weights(tiny.model) | {"model.norm.weight": torch.zeros(shape)}
    with pytest.raises(MismatchedModels, match=r"model\.norm\.weight.*\[16\]"):
        LiveModel(open_checkpoint(tiny.model)).load(given(tensors))


def test_weights_are_held_in_the_dtype_asked_for(tiny: Tiny) -> None:
    live = LiveModel(open_checkpoint(tiny.model), dtype=torch.bfloat16)
    live.load(given(weights(tiny.model)))
    assert torch.equal(live.model.lm_head.weight, weights(tiny.model)["lm_head.weight"].bfloat16())


@pytest.mark.parametrize(("value", "expected"), [(0.1, False), (float("nan"), True)])
def test_nan_is_noticed(tiny: Tiny, value: float, expected: bool) -> None:
    live = LiveModel(open_checkpoint(tiny.model))
    live.load(given({name: torch.full_like(tensor, value) for name, tensor in weights(tiny.model).items()}))
    assert live.gives_nan() is expected


def test_a_bare_weights_file_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    save_file(weights(tiny.model), tmp_path / "bare.safetensors")
    with pytest.raises(UnsupportedCheckpoint, match=r"bare.*config\.json"):
        require_model_folder(open_checkpoint(tmp_path / "bare.safetensors"))
    assert require_model_folder(open_checkpoint(tiny.model)) == tiny.model
