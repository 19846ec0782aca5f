"""The kinds of modules of real architectures, as their papers and classes have them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from kinship.checkpoints.architecture import Architecture, architecture_of
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.module_kinds import ModuleKinds, kind_in, module_kind
from kinship.checkpoints.tensor_names import group_labels
from tests.kinship.checkpoints.test_unified import KINDS

SMALL = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
SEEN = {"image_size": 28, "patch_size": 14} | {key: size for key, size in SMALL.items() if key != "vocab_size"}


def t5() -> Any:
    sizes = {"vocab_size": 40, "d_model": 16, "d_ff": 24, "d_kv": 8, "num_layers": 1, "num_heads": 2}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, feed_forward_proj="gated-gelu"))


def mamba() -> Any:
    return transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, state_size=4)
    )


def opt() -> Any:
    config = transformers.OPTConfig(
        vocab_size=40, hidden_size=16, ffn_dim=24, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=8
    )
    return transformers.OPTForCausalLM(config)


def whisper() -> Any:
    config = transformers.WhisperConfig(
        vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=8, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return transformers.WhisperForConditionalGeneration(config)


MODELS: dict[str, Callable[[], Any]] = {
    **KINDS,
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SMALL)),
    "vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**SEEN)),
    "t5": t5,
    "mamba": mamba,
    "opt": opt,
    "whisper": whisper,
}
# Names in files, or of parameters, and what they are.
EXPECTED: dict[str, dict[str, str]] = {
    "gpt_neox": {
        "embed_out.weight": "head",
        "gpt_neox.embed_in.weight": "embeddings",
        "gpt_neox.layers.1.attention.query_key_value.bias": "attention qkv",
        "gpt_neox.layers.1.attention.dense.weight": "attention o",
        "gpt_neox.layers.1.mlp.dense_4h_to_h.weight": "mlp",
    },
    "gpt2": {
        "transformer.wpe.weight": "embeddings",
        "transformer.h.0.attn.c_attn.weight": "attention qkv",
        "transformer.h.0.attn.c_proj.weight": "attention o",
        "transformer.h.0.mlp.c_proj.weight": "mlp",
        "transformer.ln_f.weight": "norms",
        "h.0.mlp.c_fc.bias": "mlp",  # as the Hub has it
    },
    "mixtral": {
        "model.layers.0.block_sparse_moe.gate.weight": "router",
        "model.layers.0.block_sparse_moe.experts.3.w2.weight": "experts",
        "model.layers.0.mlp.experts.gate_up_proj": "experts",
        "model.layers.0.self_attn.o_proj.weight": "attention o",
    },
    "qwen2_moe": {
        "model.layers.0.mlp.gate.weight": "router",
        "model.layers.0.mlp.experts.1.gate_proj.weight": "experts",
        "model.layers.0.mlp.shared_expert.gate_proj.weight": "shared experts",
        "model.layers.0.mlp.shared_expert_gate.weight": "router",
        "model.layers.0.self_attn.q_proj.bias": "attention q",
    },
    "bert": {
        "bert.embeddings.token_type_embeddings.weight": "embeddings",
        "bert.embeddings.LayerNorm.weight": "norms",
        "bert.encoder.layer.0.attention.self.value.weight": "attention v",
        "bert.encoder.layer.0.attention.output.dense.weight": "attention o",
        "bert.encoder.layer.0.intermediate.dense.weight": "mlp",
        "bert.encoder.layer.0.output.dense.weight": "mlp",
        "cls.predictions.transform.dense.weight": "head",
        "cls.predictions.bias": "head",
    },
    "vit": {
        "vit.embeddings.cls_token": "embeddings",
        "vit.embeddings.patch_embeddings.projection.weight": "embeddings",
        "vit.encoder.layer.0.attention.attention.query.weight": "attention q",  # as older versions wrote it
        "vit.layernorm.weight": "norms",
        "classifier.weight": "head",
    },
    "t5": {
        "shared.weight": "embeddings",
        "encoder.block.0.layer.0.SelfAttention.o.weight": "attention o",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": "position biases",
        "encoder.block.0.layer.1.DenseReluDense.wi_1.weight": "mlp",
        "encoder.block.0.layer.1.DenseReluDense.wo.weight": "mlp",
        "decoder.block.0.layer.1.EncDecAttention.k.weight": "cross-attention k",
        "decoder.final_layer_norm.weight": "norms",
    },
    "mamba": {
        "backbone.embeddings.weight": "embeddings",
        "backbone.layers.0.mixer.A_log": "state space",
        "backbone.layers.0.mixer.conv1d.weight": "state space",
        "backbone.layers.0.mixer.out_proj.weight": "state space",
        "backbone.layers.0.norm.weight": "norms",
    },
    "opt": {
        "model.decoder.project_in.weight": "projector",
        "model.decoder.layers.0.fc1.weight": "mlp",
        "model.decoder.embed_positions.weight": "embeddings",
    },
    "whisper": {
        "model.encoder.conv1.weight": "convolutions",
        "model.decoder.layers.0.encoder_attn.out_proj.weight": "cross-attention o",
        "model.decoder.layers.0.self_attn.q_proj.weight": "attention q",
        "proj_out.weight": "head",
    },
    "gemma3": {
        "model.multi_modal_projector.mm_input_projection_weight": "projector",
        "model.vision_tower.embeddings.patch_embedding.weight": "embeddings",
        "model.vision_tower.encoder.layers.0.mlp.fc1.weight": "mlp",
    },
}


def opened(kind: str) -> Checkpoint:
    with torch.device("meta"):
        model = MODELS[kind]()
    config = model.config.to_dict() | {"architectures": [type(model).__name__]}
    return Checkpoint(kind, Path(), {}, config)


@pytest.mark.parametrize("kind", EXPECTED)
def test_kinds_are_those_of_the_classes(kind: str) -> None:
    kind_of = ModuleKinds(opened(kind))
    assert {name: kind_of(name) for name in EXPECTED[kind]} == EXPECTED[kind]


@pytest.mark.parametrize("kind", EXPECTED)
def test_no_weight_is_of_no_kind(kind: str) -> None:
    architecture = architecture_of(opened(kind))
    assert isinstance(architecture, Architecture)
    kinds = {name: kind_in(architecture.model, name) for name in architecture.parameters}
    assert [name for name, found in kinds.items() if found == "other"] == []


def test_names_that_all_llamas_have_need_no_model() -> None:
    names = {
        "model.embed_tokens.weight": "embeddings",
        "model.layers.1.self_attn.k_proj.bias": "attention k",
        "model.layers.1.self_attn.qkv_proj.weight": "attention qkv",
        "model.layers.1.mlp.gate_up_proj.weight": "mlp",
        "model.layers.1.post_feedforward_layernorm.weight": "norms",
        "lm_head.weight": "head",
    }
    kind_of = ModuleKinds(
        Checkpoint("llama", Path(), {}, {"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    )
    assert {name: kind_of(name) for name in names} == names
    assert "_architecture" not in vars(kind_of)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("embed_out.weight", "head"),
        ("encoder.block.0.layer.1.DenseReluDense.wo.weight", "mlp"),
        ("layers.0.attention.wo.weight", "attention o"),
        ("bert.encoder.layer.0.output.dense.weight", "mlp"),
        ("model.layers.0.block_sparse_moe.gate.weight", "router"),
        ("backbone.layers.0.mixer.in_proj.weight", "state space"),
    ],
)
def test_bare_files_go_by_names(name: str, kind: str) -> None:
    assert module_kind(name) == kind
    assert ModuleKinds(Checkpoint("bare", Path(), {}, {}))(name) == kind


def test_stacks_are_told_apart() -> None:
    names = list(EXPECTED["t5"])
    found = dict(zip(names, group_labels(names, "module", ModuleKinds(opened("t5"))), strict=True))
    assert found["shared.weight"] == "embeddings"
    assert found["encoder.block.0.layer.1.DenseReluDense.wo.weight"] == "encoder mlp"
    assert found["decoder.final_layer_norm.weight"] == "decoder norms"
    assert group_labels(["model.layers.0.mlp.up_proj.weight"], "module") == ["mlp"]
