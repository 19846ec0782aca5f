"""Sound folders of real architectures are called sound, and what is wrong with them is found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from kinship.checkpoints.opening import INDEX_NAME
from merging.output.verify import verify_folder
from tests.kinship.checkpoints.test_token_rows import bart, bert, mamba, rwkv
from tests.kinship.checkpoints.test_unified import KINDS
from tests.merging.planning.test_stacks import t5, whisper


def opt() -> Any:
    """Embeddings of another width than the layers."""
    config = transformers.OPTConfig(
        vocab_size=40, hidden_size=16, word_embed_proj_dim=8, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, do_layer_norm_before=False,
    )  # fmt: skip
    return transformers.OPTForCausalLM(config)


MODELS: dict[str, Callable[[], Any]] = KINDS | {
    "opt": opt, "t5": t5, "whisper": whisper, "rwkv": rwkv, "mamba": mamba, "bert": bert, "bart": bart,
}  # fmt: skip


def wrong(folder: Path) -> dict[str, str]:
    return {check.name: check.detail for check in verify_folder(folder) if check.ok is False}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_as_transformers_saves_it_is_sound(kind: str, tmp_path: Path) -> None:
    MODELS[kind]().save_pretrained(tmp_path / "m")
    assert wrong(tmp_path / "m") == {}
    assert any(check.name == "parameters" and check.ok for check in verify_folder(tmp_path / "m"))
    stored = load_file(tmp_path / "m/model.safetensors")
    lost = next(name for name in sorted(stored) if ".0." in name)
    save_file({name: tensor for name, tensor in stored.items() if name != lost}, tmp_path / "m/model.safetensors")
    assert wrong(tmp_path / "m").keys() == {"parameters"}


def test_a_few_tensors_in_fp32_are_no_fault_and_a_wrong_dtype_is(tmp_path: Path) -> None:
    KINDS["mixtral"]().to(torch.bfloat16).save_pretrained(tmp_path / "m")
    stored = load_file(tmp_path / "m/model.safetensors")
    gates = {name: tensor.float() if "gate.weight" in name else tensor for name, tensor in stored.items()}
    save_file(gates, tmp_path / "m/model.safetensors")
    assert wrong(tmp_path / "m") == {}
    save_file({name: tensor.float() for name, tensor in stored.items()}, tmp_path / "m/model.safetensors")
    assert wrong(tmp_path / "m").keys() == {"dtype"}


def test_code_that_a_config_names_and_that_is_missing(tmp_path: Path) -> None:
    KINDS["gpt_neox"]().save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m/config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_own.OwnModel", "AutoConfig": "org/other--config.Own"}
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    assert "modeling_own.py" in wrong(tmp_path / "m")["code"]
    (tmp_path / "m/modeling_own.py").write_text("raise SystemExit('never run')")
    assert wrong(tmp_path / "m") == {}


def test_an_older_index_beside_a_single_file_is_told(tmp_path: Path) -> None:
    KINDS["gpt_neox"]().save_pretrained(tmp_path / "m")
    save_file({"old": torch.ones(2)}, tmp_path / "m/model-00001-of-00001.safetensors")
    index = {"weight_map": {"old": "model-00001-of-00001.safetensors"}}
    (tmp_path / "m" / INDEX_NAME).write_text(json.dumps(index))
    assert wrong(tmp_path / "m").keys() == {"index"}
