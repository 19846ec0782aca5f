"""Tensors with a row for each token are what grows with the vocabulary, whatever they are called."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.token_rows import heights_differ, vocabulary_tensors
from kinship.errors import UnsupportedCheckpoint

# Widths that are the number of tokens, too: shapes alone would not tell.
SMALL = {"vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 2}


def bert() -> Any:
    config = transformers.BertConfig(**SMALL, intermediate_size=16, num_attention_heads=2, tie_word_embeddings=False)
    return transformers.BertForMaskedLM(config)


def bart() -> Any:
    config = transformers.BartConfig(
        vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=40, decoder_ffn_dim=40, max_position_embeddings=32,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2,
    )  # fmt: skip
    return transformers.BartForConditionalGeneration(config)


def mamba() -> Any:
    config = transformers.MambaConfig(**SMALL, state_size=4, tie_word_embeddings=False)
    return transformers.MambaForCausalLM(config)


def mamba2() -> Any:
    config = transformers.Mamba2Config(**SMALL, state_size=4, num_heads=4, head_dim=8, n_groups=1)
    return transformers.Mamba2ForCausalLM(config)  # whose config holds an infinite number


def rwkv() -> Any:
    config = transformers.RwkvConfig(**SMALL, attention_hidden_size=16, intermediate_size=16, context_length=32)
    return transformers.RwkvForCausalLM(config)


KINDS: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "bert": (
        bert,
        {
            "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.weight",
            "cls.predictions.decoder.bias",
            "cls.predictions.bias",
        },
    ),
    "bart": (bart, {"model.shared.weight", "final_logits_bias"}),
    "mamba": (mamba, {"backbone.embeddings.weight", "lm_head.weight"}),
    "mamba2": (mamba2, {"backbone.embeddings.weight", "lm_head.weight"}),
    "rwkv": (rwkv, {"rwkv.embeddings.weight", "head.weight"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_of_real_architectures(kind: str, tmp_path: Path) -> None:
    make, expected = KINDS[kind]
    model = make()
    model.save_pretrained(tmp_path / "m")
    opened = open_checkpoint(tmp_path / "m")
    found = set(vocabulary_tensors(opened))
    assert found == expected & opened.tensors.keys()
    assert {name for name in expected if "bias" not in name} <= found
    model.resize_token_embeddings(model.config.vocab_size + 2, mean_resizing=False)
    model.save_pretrained(tmp_path / "more")
    more = open_checkpoint(tmp_path / "more")
    assert heights_differ([opened, more])
    assert not heights_differ([opened, opened])
    assert set(vocabulary_tensors(more)) == found & more.tensors.keys()


def test_bare_files_go_by_names_and_lengths(tmp_path: Path) -> None:
    shapes = {"model.embed_tokens.weight": (40, 8), "model.norm.weight": (8,), "my_table": (8, 40)}
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, tmp_path / "odd.safetensors")
    with pytest.raises(UnsupportedCheckpoint, match=r"'my_table'.* as long as the vocabulary"):
        vocabulary_tensors(open_checkpoint(tmp_path / "odd.safetensors"))
    del shapes["my_table"]
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, tmp_path / "plain.safetensors")
    assert vocabulary_tensors(open_checkpoint(tmp_path / "plain.safetensors")) == ["model.embed_tokens.weight"]
