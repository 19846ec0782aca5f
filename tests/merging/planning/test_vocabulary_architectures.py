"""Rows of tokens are moved in every tensor that has them, by whatever names."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kinship import kinship_matrix
from kinship.measures.options import ComparisonOptions
from merging.merge import write_merge
from merging.recipe.schema import parse_recipe
from tests.kinship.checkpoints.test_token_rows import bart, bert, mamba, rwkv
from tests.search.running.test_founders import WORDS, tokenizer

KINDS = {
    "bart": (bart, ["model.shared.weight", "final_logits_bias"]),
    "bert": (
        bert,
        ["bert.embeddings.word_embeddings.weight", "cls.predictions.bias", "cls.predictions.decoder.weight"],
    ),
    "mamba": (mamba, ["backbone.embeddings.weight", "lm_head.weight"]),
    "rwkv": (rwkv, ["rwkv.embeddings.weight", "head.weight"]),
}


def of_tokens(value: torch.Tensor) -> torch.Tensor:
    """Tokens first."""
    return value[0] if value.shape[0] == 1 else value


@pytest.mark.parametrize("kind", KINDS)
def test_union_and_shared_tokens(kind: str, tmp_path: Path) -> None:
    make, names = KINDS[kind]
    extra: dict[str, tuple[str, ...]] = {"base": (), "a": ("<one>",), "b": ("<two>", "<one>")}
    made: dict[str, Any] = {}
    for seed, (name, tokens) in enumerate(extra.items()):
        torch.manual_seed(seed)
        model = make().float()
        model.resize_token_embeddings(len(WORDS) + len(tokens), mean_resizing=False)
        with torch.no_grad():
            for value in model.state_dict().values():
                if value.is_floating_point():
                    value.copy_(torch.randn_like(value))
        model.save_pretrained(tmp_path / name)
        tokenizer(tokens).save_pretrained(tmp_path / name)
        made[name] = load_file(tmp_path / name / "model.safetensors")
    listed = [{"model": str(tmp_path / name), "parameters": {"weight": 0.5}} for name in ("a", "b")]
    content = {"merge_method": "linear", "models": listed, "tokenizer_source": "union"}
    folder = write_merge(parse_recipe(content), tmp_path / "out")
    out = load_file(folder / "model.safetensors")
    for name in names:
        merged, a, b = (of_tokens(tensors[name]) for tensors in (out, made["a"], made["b"]))
        assert merged.shape[0] == len(WORDS) + 2
        torch.testing.assert_close(merged[:40], (a[:40] + b[:40]) / 2, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(merged[40], (a[40] + b[41]) / 2, rtol=1e-5, atol=1e-6)  # <one>
        torch.testing.assert_close(merged[41], b[40], rtol=1e-5, atol=1e-6)  # <two>, of b alone
    live, report = type(make()).from_pretrained(folder, output_loading_info=True)
    # transformers itself loses BERT's second bias where it resizes an untied head.
    _, before = type(live).from_pretrained(tmp_path / "a", output_loading_info=True)
    assert report["missing_keys"] == before["missing_keys"]
    assert not report["mismatched_keys"]
    assert live.config.vocab_size == len(WORDS) + 2
    options = ComparisonOptions(vocab="shared")
    matrix = kinship_matrix([tmp_path / "a", tmp_path / "b"], tmp_path / "base", options=options)
    compared = [name for name in names if name in matrix.to_dict()["left_out"]]
    assert compared == names  # all but the shared rows are left out, and said to be
