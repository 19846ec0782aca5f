"""Merges of adapters of every kind against the live models that peft makes of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from merging.merge import write_merge
from merging.recipe.schema import Recipe
from tests.kinship.live_adapters import live, logits, train, write_base

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
TURNED = {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}

# (base, what the adapter is made with, whether the head is a tensor of its own afterwards)
KINDS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "embedding saved": ("tied", {"modules_to_save": ["embed_tokens"]}, True),
    "head saved": ("tied", {"modules_to_save": ["lm_head"]}, True),
    "both saved": ("tied", {"modules_to_save": ["embed_tokens", "lm_head"]}, True),
    "both saved, untied base": ("untied", {"modules_to_save": ["embed_tokens", "lm_head"]}, True),
    "kept tied": ("tied", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, False),
    "kept tied by the head": ("tied", {"modules_to_save": ["lm_head"], "ensure_weight_tying": True}, False),
    "embeddings written along": ("tied", {"save_embedding_layers": True}, False),
    "head a target": ("tied", {"target_modules": ["q_proj", "lm_head"]}, True),
    "head a target, lean": ("tied", {"target_modules": ["lm_head"], "save_embedding_layers": False}, True),
    "embedding a target": ("tied", {"target_modules": ["q_proj", "embed_tokens"]}, True),
    "both targets": ("tied", {"target_modules": ["lm_head", "embed_tokens"]}, True),
    "targets kept tied": ("tied", {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}, False),
    "embedding saved, head a target": (
        "tied",
        {"modules_to_save": ["embed_tokens"], "target_modules": ["lm_head", "q_proj"]},
        True,
    ),
    "head saved, embedding a target": (
        "tied",
        {"modules_to_save": ["lm_head"], "target_modules": ["embed_tokens", "q_proj"]},
        True,
    ),
    "gemma, embedding saved": ("gemma", {"modules_to_save": ["embed_tokens"]}, True),
    "gemma, embedding a target": ("gemma", {"target_modules": ["embed_tokens"]}, True),
    "gemma, tokens": ("gemma", {"trainable_token_indices": [30, 7]}, False),
    "gpt2, wte saved": ("gpt2", TURNED | {"modules_to_save": ["wte"]}, True),
    "gpt2, head a target": ("gpt2", {"target_modules": ["lm_head"]}, True),
    "tokens": ("tied", {"trainable_token_indices": [30, 7]}, False),
    "tokens, untied base": ("untied", {"trainable_token_indices": [30, 7]}, True),
    "other tokens of the head": ("tied", {"trainable_token_indices": {"embed_tokens": [7], "lm_head": [9, 8]}}, True),
    "dora": ("untied", {"target_modules": ["q_proj", "up_proj"], "use_dora": True, "use_rslora": True}, True),
    "dora of the embedding": ("tied", {"target_modules": ["embed_tokens"], "use_dora": True}, True),
    "dora of a head": ("tied", {"target_modules": ["lm_head"], "use_dora": True}, True),
    "gpt2, linear and transposed": ("gpt2", {"target_modules": ["c_attn", "c_proj", "lm_head"]}, True),
    "gpt2, transposed and linear": ("gpt2", TURNED | {"target_modules": ["lm_head", "c_proj"]}, True),
    "a flag that fits no layer": ("untied", {"fan_in_fan_out": True, "target_modules": ["q_proj", "o_proj"]}, True),
    "by regex, in one layer": ("untied", {"target_modules": r".*\.1\..*(q|up)_proj", "use_rslora": True}, True),
    "of some layers": ("untied", {"layers_to_transform": [1], "target_modules": ["down_proj"]}, True),
    "gpt2, dora": ("gpt2", TURNED | {"use_dora": True}, False),
    "all biases": ("gpt2", TURNED | {"bias": "all", "modules_to_save": ["ln_f"]}, False),
    "biases of targets": ("biased", {"bias": "lora_only"}, False),
    "a bias of the factors": ("biased", {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]}, False),
    "gpt2, a bias of the factors": ("gpt2", TURNED | {"lora_bias": True}, False),
    "pissa": ("tied", {"init_lora_weights": "pissa", "target_modules": ["q_proj", "down_proj"]}, False),
    "pissa of a head": ("tied", {"init_lora_weights": "pissa", "target_modules": ["lm_head"]}, True),
    "pissa and dora": ("untied", {"init_lora_weights": "pissa", "use_dora": True}, True),
    "gpt2, pissa": ("gpt2", TURNED | {"init_lora_weights": "pissa"}, False),
    "olora": ("tied", {"init_lora_weights": "olora", "rank_pattern": {"v_proj": 2}}, False),
    "orthogonal": ("tied", {"init_lora_weights": "orthogonal", "r": 4}, False),
    "patterns": (
        "untied",
        {"target_modules": "all-linear", "rank_pattern": {r".*up_proj": 5}, "alpha_pattern": {"layers.1.mlp": 2}},
        True,
    ),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {kind: write_base(folder / kind, kind) for kind in ("tied", "untied", "biased", "gemma", "gpt2")}


def merged(recipe: dict[str, Any], out: Path) -> Path:
    return write_merge(Recipe.model_validate(recipe).check(), out)


def reloaded(folder: Path) -> Any:
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_adapter_computes_what_the_live_one_does(kind: str, bases: dict[str, Path], tmp_path: Path) -> None:
    name, options, untied = KINDS[kind]
    base = bases[name]
    adapter = train(base, tmp_path / "adapter", options)
    wanted = logits(live(base, adapter))
    assert (wanted - logits(reloaded(base))).abs().max() > 1e-3
    out = merged({"merge_method": "passthrough", "models": [{"model": f"{base}+{adapter}"}]}, tmp_path / "out")
    assert (logits(reloaded(out)) - wanted).abs().max() <= 1e-5
    assert (HEAD in load_file(out / "model.safetensors")) == untied
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is not untied


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "slerp", "ties"])
def test_a_tied_and_an_untied_model_are_merged_as_if_both_had_a_head(
    method: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    """The same merge of models that were saved untied gives the same weights."""
    base = bases["tied"]
    models = {
        "plain": train(base, tmp_path / "plain", {"target_modules": ["q_proj", "up_proj"]}, seed=1),
        "whole": train(base, tmp_path / "whole", {"modules_to_save": ["embed_tokens"]}, seed=2),
    }
    apart = {name: untied_copy(live(base, adapter), tmp_path / f"{name} untied") for name, adapter in models.items()}
    apart["base"] = untied_copy(reloaded(base), tmp_path / "base untied")
    listed = {name: f"{base}+{adapter}" for name, adapter in models.items()} | {"base": str(base)}
    found, wanted = (
        load_file(
            merged(recipe_of(method, {key: str(value) for key, value in each.items()}), out) / "model.safetensors"
        )
        for each, out in ((listed, tmp_path / "found"), (apart, tmp_path / "wanted"))
    )
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.allclose(found[name], tensor, rtol=0, atol=1e-5), name
    assert not torch.allclose(found[HEAD], found[EMBEDDING], rtol=0, atol=1e-3)
    model = reloaded(tmp_path / "found")
    assert (logits(model) - logits(reloaded(tmp_path / "wanted"))).abs().max() <= 1e-5


def recipe_of(method: str, models: dict[str, str]) -> dict[str, Any]:
    inputs = [{"model": models[name], "parameters": {"weight": 0.5, "density": 0.6}} for name in ("plain", "whole")]
    if method == "linear":
        return {"merge_method": method, "models": [{**each, "parameters": {"weight": 0.5}} for each in inputs]}
    if method == "slerp":
        names = [{"model": models[name]} for name in ("plain", "whole")]
        return {"merge_method": method, "base_model": models["plain"], "models": names, "parameters": {"t": 0.3}}
    if method == "task_arithmetic":
        inputs = [{**each, "parameters": {"weight": 0.5}} for each in inputs]
    return {"merge_method": method, "base_model": models["base"], "models": inputs}


def untied_copy(model: Any, folder: Path) -> Path:
    """``model`` merged and saved with a head of its own, by hand."""
    from transformers import LlamaConfig, LlamaForCausalLM

    plain = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    config = LlamaConfig.from_dict(plain.config.to_dict() | {"tie_word_embeddings": False})
    copy = LlamaForCausalLM(config)
    copy.load_state_dict({name: tensor.clone() for name, tensor in plain.state_dict().items()})
    copy.save_pretrained(folder)
    return folder


def test_a_linear_merge_of_adapters_is_the_mean_of_their_live_weights(bases: dict[str, Path], tmp_path: Path) -> None:
    base = bases["biased"]
    kinds = [
        {"use_dora": True},
        {"init_lora_weights": "pissa"},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head"]},
    ]
    adapters = [train(base, tmp_path / str(seed), options, seed=seed) for seed, options in enumerate(kinds, 1)]
    entries = [{"model": f"{base}+{adapter}", "parameters": {"weight": 1.0}} for adapter in adapters]
    found = load_file(merged({"merge_method": "linear", "models": entries}, tmp_path / "out") / "model.safetensors")
    states = [live(base, adapter).merge_and_unload().state_dict() for adapter in adapters]
    assert found.keys() == states[0].keys()
    for name, tensor in found.items():
        mean = torch.stack([state[name].double() for state in states]).mean(dim=0)
        assert torch.allclose(tensor.double(), mean, rtol=0, atol=1e-6), name
