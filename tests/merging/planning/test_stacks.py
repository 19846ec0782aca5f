"""Models with several stacks of layers: each is a stack of its own, in gradients and in rows of a matrix."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.tensor_names import group_members
from merging.merge import write_merge
from merging.recipe.schema import parse_recipe
from tests.kinship.checkpoints.test_unified import gemma3


def whisper() -> Any:
    config = transformers.WhisperConfig(
        vocab_size=40, d_model=16, encoder_layers=4, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=8, max_source_positions=16,
        max_target_positions=16, decoder_start_token_id=1, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip
    return transformers.WhisperForConditionalGeneration(config)


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=3, num_decoder_layers=2, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


KINDS = {
    "gemma3": (
        gemma3,
        {"language_model.model.layers.{}.self_attn.q_proj.weight": 2, "encoder.layers.{}.self_attn.q_proj.weight": 3},
    ),
    "whisper": (
        whisper,
        {"decoder.layers.{}.self_attn.q_proj.weight": 2, "encoder.layers.{}.self_attn.q_proj.weight": 4},
    ),
    "t5": (
        t5,
        {
            "decoder.block.{}.layer.0.SelfAttention.q.weight": 2,
            "encoder.block.{}.layer.0.SelfAttention.q.weight": 3,
            "decoder.block.{}.layer.2.DenseReluDense.wi.weight": 2,
        },
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_ends_at_the_last_layer_of_each_stack(kind: str, tmp_path: Path) -> None:
    make, stacks = KINDS[kind]
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        make().float().save_pretrained(tmp_path / name)
    models = [{"model": str(tmp_path / name)} for name in "ab"]
    weights = [
        model | {"parameters": {"weight": gradient}} for model, gradient in zip(models, ([1, 0], [0, 1]), strict=True)
    ]
    content = {"merge_method": "linear", "models": weights, "parameters": {"normalize": True}}
    folder = write_merge(parse_recipe(content), tmp_path / "out")
    merged, a, b = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "a", tmp_path / "b"))
    for ending, count in stacks.items():
        for layer in range(count):
            name = next(name for name in merged if name.endswith(ending.format(layer)))
            t = layer / (count - 1)
            torch.testing.assert_close(merged[name], (1 - t) * a[name] + t * b[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("gemma3", {"language_model layer": 2, "vision_tower layer": 3}),
        ("whisper", {"decoder layer": 2, "encoder layer": 4}),
        ("t5", {"decoder layer": 2, "encoder layer": 3}),
    ],
)
def test_rows_by_layer_are_of_one_stack(kind: str, expected: dict[str, int], tmp_path: Path) -> None:
    KINDS[kind][0]().save_pretrained(tmp_path / "m")
    labels = group_members(sorted(open_checkpoint(tmp_path / "m").tensors), "layer")
    wanted = {f"{stack} {layer}" for stack, count in expected.items() for layer in range(count)}
    assert {label for label in labels if "layer" in label} == wanted
