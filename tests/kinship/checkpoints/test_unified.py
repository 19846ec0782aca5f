"""Files that differ in form only are one architecture; what transformers makes of them is the truth."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from kinship.checkpoints.architecture import architecture_of
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.unified import IGNORED, unified

SMALL = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
MOE = SMALL | {"num_key_value_heads": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 8}


def mixtral() -> Any:
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=12)
    )


def qwen_moe() -> Any:
    config = transformers.Qwen2MoeConfig(**MOE, num_experts=3, shared_expert_intermediate_size=8)
    return transformers.Qwen2MoeForCausalLM(config)


def pythia() -> Any:
    return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SMALL))


def gpt2() -> Any:
    config = transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    return transformers.GPT2LMHeadModel(config)


def gemma3() -> Any:
    text = transformers.Gemma3TextConfig(**SMALL, num_key_value_heads=2, head_dim=8)
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    seen = transformers.SiglipVisionConfig(**vision, image_size=28, patch_size=14)
    config = transformers.Gemma3Config(text_config=text, vision_config=seen, mm_tokens_per_image=4)
    return transformers.Gemma3ForConditionalGeneration(config)


KINDS: dict[str, Callable[[], Any]] = {
    "mixtral": mixtral,
    "qwen2_moe": qwen_moe,
    "gpt_neox": pythia,
    "gpt2": gpt2,
    "gemma3": gemma3,
}


def saved(kind: str, folder: Path) -> Any:
    torch.manual_seed(0)
    model = KINDS[kind]().float()
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder)


def rewritten(source: Path, target: Path, tensors: dict[str, torch.Tensor]) -> Checkpoint:
    """The folder ``source`` again, with ``tensors`` in its file."""
    target.mkdir()
    (target / "config.json").write_text((source / "config.json").read_text())
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, target / "model.safetensors")
    return open_checkpoint(target)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_what_transformers_loads(kind: str, tmp_path: Path) -> None:
    live = saved(kind, tmp_path / "m").state_dict()
    model = open_checkpoint(tmp_path / "m")
    architecture = architecture_of(model)
    assert architecture is not None
    assert architecture.missing(model.tensors) == []
    assert architecture.missing(list(model.tensors)[1:]) != []
    stored = ((name, model.tensor(name)) for name in model.tensors)
    found = dict(architecture.converted(stored, list(model.tensors)))
    assert found.keys() <= live.keys()
    assert all(torch.equal(found[name], live[name]) for name in found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_by_the_names_of_parameters_is_read_by_those_of_the_other(kind: str, tmp_path: Path) -> None:
    live = saved(kind, tmp_path / "m")
    model = open_checkpoint(tmp_path / "m")
    own = {name: tensor.clone() for name, tensor in live.named_parameters()}  # experts are fused in these
    other = rewritten(tmp_path / "m", tmp_path / "own", own)
    (first, second), ignored = unified([model, other])
    assert ignored == {}
    assert first is model
    assert second.tensors.keys() == model.tensors.keys()
    for name, entry in model.tensors.items():
        assert second.tensors[name].shape == entry.shape
        np.testing.assert_array_equal(second.floats(name), model.floats(name))
        half = entry.count // 2
        np.testing.assert_array_equal(second.floats(name, half, 3), model.floats(name, half, 3))
    assert second.digest == other.digest


def test_the_hubs_gpt2_has_no_prefix(tmp_path: Path) -> None:
    saved("gpt2", tmp_path / "m")
    tensors = load_file(tmp_path / "m/model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 32, 32) for layer in range(2)}
    hub = rewritten(tmp_path / "m", tmp_path / "hub", bare | masks)
    (first, second), ignored = unified([hub, open_checkpoint(tmp_path / "m")])
    assert set(ignored.values()) == {IGNORED}
    assert ignored.keys() == masks.keys()
    assert first.tensors.keys() == second.tensors.keys() == bare.keys()


def test_a_buffer_of_integers_that_some_of_the_models_have(tmp_path: Path) -> None:
    shape = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    config = transformers.BertConfig(num_hidden_layers=2, max_position_embeddings=32, **shape)
    transformers.BertModel(config).save_pretrained(tmp_path / "m")
    stored = load_file(tmp_path / "m/model.safetensors")
    positions = {"embeddings.position_ids": torch.arange(32).reshape(1, -1)}
    old = rewritten(tmp_path / "m", tmp_path / "old", stored | positions)
    (first, second), ignored = unified([old, open_checkpoint(tmp_path / "m")])
    assert ignored == {"embeddings.position_ids": IGNORED}
    assert first.tensors.keys() == second.tensors.keys() == stored.keys()


def test_old_vision_language_prefixes(tmp_path: Path) -> None:
    """Files of before transformers 4.52 and of today, which has the language model inside `model`."""
    live = saved("gemma3", tmp_path / "m")
    today = rewritten(tmp_path / "m", tmp_path / "new", dict(live.named_parameters()))
    (_, second), _ = unified([open_checkpoint(tmp_path / "m"), today])
    assert any(name.startswith("language_model.") for name in second.tensors)


def test_models_that_agree_are_left_alone_and_so_are_unknown_ones(tmp_path: Path) -> None:
    saved("gpt_neox", tmp_path / "m")
    model = open_checkpoint(tmp_path / "m")
    assert unified([model, model]) == ([model, model], {})
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    save_file({"v": torch.ones(2)}, tmp_path / "b.safetensors")
    bare = [open_checkpoint(tmp_path / f"{name}.safetensors") for name in "ab"]
    assert unified(bare) == (bare, {})


def test_a_single_file_counts_before_an_older_index(tmp_path: Path) -> None:
    """As for transformers; a folder saved whole over one that was saved in shards keeps the old shards."""
    saved("gpt_neox", tmp_path / "m")
    save_file({"old": torch.ones(2)}, tmp_path / "m/model-00001-of-00001.safetensors")
    index = {"weight_map": {"old": "model-00001-of-00001.safetensors"}}
    (tmp_path / "m/model.safetensors.index.json").write_text(json.dumps(index))
    assert "old" not in open_checkpoint(tmp_path / "m").tensors
