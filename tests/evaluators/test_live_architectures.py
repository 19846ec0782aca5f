"""The live model has the weights that `from_pretrained` gives it, whatever names the files have."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluators.base import Candidate
from evaluators.live import LiveModel
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import MismatchedModels, UnsupportedCheckpoint
from search.config import parse_config
from service.answers.dry_run import plan_search
from tests.kinship.checkpoints.test_unified import KINDS, rewritten, saved
from tests.search.running.test_founders import tokenizer


def candidate(folder: Path) -> Candidate:
    model = open_checkpoint(folder)
    return Candidate(model.id, model.digest, lambda: ((name, model.tensor(name)) for name in model.tensors))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "gemma3"])
def test_logits_are_those_of_from_pretrained(kind: str, tmp_path: Path) -> None:
    loaded = saved(kind, tmp_path / "m").eval()
    tokenizer().save_pretrained(tmp_path / "m")
    live = LiveModel(open_checkpoint(tmp_path / "m"))
    live.hold(candidate(tmp_path / "m"))
    ids = torch.arange(12).reshape(2, 6)
    with torch.inference_mode():
        torch.testing.assert_close(live.model(ids).logits, loaded(ids).logits, rtol=0, atol=1e-6)


def test_the_same_weights_by_the_names_of_parameters_and_with_leftover_buffers(tmp_path: Path) -> None:
    loaded = saved("gpt_neox", tmp_path / "m").eval()
    tokenizer().save_pretrained(tmp_path / "m")
    buffers = {f"gpt_neox.layers.{layer}.attention.rotary_emb.inv_freq": torch.ones(4) for layer in range(2)}
    masks = {f"gpt_neox.layers.{layer}.attention.bias": torch.ones(1, 1, 8, 8).bool() for layer in range(2)}
    stored = load_file(tmp_path / "m/model.safetensors")
    rewritten(tmp_path / "m", tmp_path / "old", stored | buffers | masks).close()
    rewritten(tmp_path / "m", tmp_path / "own", dict(loaded.named_parameters())).close()
    live = LiveModel(open_checkpoint(tmp_path / "m"))
    ids = torch.arange(6).reshape(1, 6)
    for name in ("old", "own"):
        live.hold(candidate(tmp_path / name))
        with torch.inference_mode():
            torch.testing.assert_close(live.model(ids).logits, loaded(ids).logits, rtol=0, atol=1e-6)


def test_a_tensor_too_few_or_too_many_is_told(tmp_path: Path) -> None:
    saved("mixtral", tmp_path / "m")
    tokenizer().save_pretrained(tmp_path / "m")
    live = LiveModel(open_checkpoint(tmp_path / "m"))
    stored = load_file(tmp_path / "m/model.safetensors")
    save_file(stored | {"another": torch.ones(2)}, tmp_path / "m/model.safetensors")
    with pytest.raises(MismatchedModels, match="no parameter 'another'"):
        live.hold(candidate(tmp_path / "m"))
    lost = "model.layers.1.block_sparse_moe.gate.weight"
    save_file({name: tensor for name, tensor in stored.items() if name != lost}, tmp_path / "m/model.safetensors")
    with pytest.raises(MismatchedModels, match=r"layers\.1\.mlp\.gate\.weight"):
        live.hold(candidate(tmp_path / "m"))


def test_files_that_no_conversion_fits_are_told_of_before_anything_is_scored(tmp_path: Path) -> None:
    """Experts of unlike shapes cannot be fused; what is told, a dry run tells."""
    saved("mixtral", tmp_path / "m")
    tokenizer().save_pretrained(tmp_path / "m")
    stored = load_file(tmp_path / "m/model.safetensors")
    odd = "model.layers.1.block_sparse_moe.experts.3.w1.weight"
    save_file(stored | {odd: torch.ones(7, 16)}, tmp_path / "m/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedCheckpoint, match="cannot be turned into the parameters") as refusal:
        LiveModel(open_checkpoint(tmp_path / "m"))
    assert "written: {backend: hf}" in refusal.value.hint
    settings = {"base": str(tmp_path / "m"), "founders": {"a": str(tmp_path / "m"), "b": str(tmp_path / "m")}}
    settings |= {"evaluate": {"tasks": ["any"]}, "strategy": {"name": "topk", "k": 2}, "merge": {"method": "linear"}}
    with pytest.raises(UnsupportedCheckpoint, match="cannot be turned"):
        plan_search(parse_config(settings), tmp_path, tmp_path / "run")
