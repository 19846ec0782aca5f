"""Adapters are read as peft would read them, or refused."""

import json
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship.checkpoints.adapted import AdaptedCheckpoint
from kinship.checkpoints.low_rank import LowRank
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import (
    KinshipError,
    MalformedCheckpoint,
    MismatchedModels,
    NonFiniteWeights,
    UnsupportedCheckpoint,
)
from tests.conftest import MakeModel
from tests.kinship.adapters import Q0, Q1, UP0, Tensors, factors, write

A, B = f"base_model.model.{Q0}.lora_A.weight", f"base_model.model.{Q0}.lora_B.weight"
NORM = "base_model.model.model.norm.weight"


@pytest.fixture
def base(make_model: MakeModel) -> Path:
    return make_model("base")


def low_rank_of(folder: Path, base: Path) -> dict[str, LowRank]:
    with open_checkpoint(f"{base}+{folder}") as checkpoint:
        assert isinstance(checkpoint, AdaptedCheckpoint)
        changes = checkpoint.adapter.changes
    return {name: change.low_rank for name, change in changes.items() if change.low_rank is not None}


# What is read


def test_factors_and_their_scale_are_read(base: Path, tmp_path: Path) -> None:
    tensors = factors(base, {Q0: 2, UP0: 4})
    changes = low_rank_of(write(tmp_path / "lora", tensors, lora_alpha=6), base)
    assert set(changes) == {f"{Q0}.weight", f"{UP0}.weight"}
    change = changes[f"{Q0}.weight"]
    assert (change.scale, change.shape) == (3.0, (8, 8))
    assert np.array_equal(change.left, tensors[B])
    assert np.array_equal(change.right, tensors[A])
    assert np.array_equal(change.dense(), 3.0 * (tensors[B].numpy() @ tensors[A].numpy()))
    assert changes[f"{UP0}.weight"].scale == 1.5


@pytest.mark.parametrize(
    ("config", "scales"),
    [
        ({"lora_alpha": 16}, (8.0, 4.0)),
        ({"lora_alpha": 16, "use_rslora": True}, (16 / math.sqrt(2), 8.0)),
        ({"lora_alpha": 0.5}, (0.25, 0.125)),
        ({"alpha_pattern": {"q_proj": 2}}, (1.0, 2.0)),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 2, "up_proj": 1}}, (1.0, 0.25)),
        ({"alpha_pattern": {"proj": 2, "mlp": 2, "0.mlp": 3}}, (4.0, 2.0)),  # a whole part of the name, to its end
        ({"alpha_pattern": {".*_proj": 2, "q_proj": 3}}, (1.0, 0.5)),  # the first that matches
        ({"alpha_pattern": {r"layers\.\d+\.(mlp|self_attn)\.up_proj": 2}}, (4.0, 0.5)),
        ({"r": 2, "rank_pattern": {"up_proj": 4}}, (4.0, 2.0)),
        ({"r": 4, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 1}, "use_rslora": True}, (2**-0.5, 4.0)),
    ],
    ids=str,
)
def test_scale_follows_the_config(
    base: Path, tmp_path: Path, config: dict[str, Any], scales: tuple[float, ...]
) -> None:
    changes = low_rank_of(write(tmp_path / "lora", factors(base, {Q0: 2, UP0: 4}), **config), base)
    assert [changes[f"{module}.weight"].scale for module in (Q0, UP0)] == pytest.approx(scales)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_factors_of_other_dtypes_are_widened(base: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {key: tensor.to(dtype) for key, tensor in factors(base, {Q0: 2}).items()}
    change = low_rank_of(write(tmp_path / "lora", tensors), base)[f"{Q0}.weight"]
    assert change.left.dtype == change.right.dtype == np.float32
    assert np.array_equal(change.left, tensors[B].float())


def test_layer_that_stores_its_transpose_is_changed_by_the_transpose(base: Path, tmp_path: Path) -> None:
    tensors = factors(base, {UP0: 2})
    left, right = tensors.values()
    turned = {key: tensor.T for key, tensor in zip(tensors, (right, left), strict=True)}
    changes = low_rank_of(write(tmp_path / "lora", turned, fan_in_fan_out=True), base)
    assert np.allclose(changes[f"{UP0}.weight"].dense(), 4.0 * (right @ left), rtol=1e-5, atol=1e-7)


def test_adapter_saved_without_peft_s_prefix_is_read(base: Path, tmp_path: Path) -> None:
    tensors = {key.removeprefix("base_model.model."): tensor for key, tensor in factors(base, {Q0: 2}).items()}
    assert set(low_rank_of(write(tmp_path / "lora", tensors), base)) == {f"{Q0}.weight"}


def test_adapter_made_and_merged_by_peft(tmp_path: Path) -> None:
    """Ranks and alphas by pattern, rsLoRA, attention, MLP, embeddings and a head saved whole."""
    import peft
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "v_proj", "up_proj", "down_proj", "embed_tokens"],
        modules_to_save=["lm_head"],
        rank_pattern={"v_proj": 2, "layers.1.mlp.up_proj": 8},
        alpha_pattern={"down_proj": 3, "layers.0.self_attn.q_proj": 5},
        use_rslora=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(LlamaForCausalLM.from_pretrained(tmp_path / "base"), lora)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(tmp_path / "adapter")  # embeddings too: they are targeted
        model.save_pretrained(tmp_path / "without embeddings", save_embedding_layers=False)
        merged = model.merge_and_unload().state_dict()
    assert any("base_layer" in key for key in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    for adapter in ("adapter", "without embeddings"):
        with open_checkpoint(f"{tmp_path / 'base'}+{tmp_path / adapter}") as checkpoint:
            assert checkpoint.tensors.keys() == merged.keys()
            for name, tensor in merged.items():
                assert torch.allclose(checkpoint.tensor(name).float(), tensor, rtol=0, atol=1e-6), name
        with open_checkpoint(tmp_path / "base") as base:
            changed = {name for name in merged if not torch.equal(base.tensor(name), merged[name])}
    assert len(changed) == 2 * 4 + 2


# What is refused


def refused(folder: Path, base: Path, error: type[KinshipError], reason: str) -> None:
    with pytest.raises(error) as refusal:
        open_checkpoint(f"{base}+{folder}")
    assert reason in refusal.value.message
    assert folder.name in refusal.value.message
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"peft_type": "IA3"}, "its peft_type is 'IA3'"),
        ({"peft_type": None}, "its peft_type is None"),
        ({"layer_replication": [[0, 1]]}, "it uses layer_replication"),
        ({"target_parameters": ["experts"]}, "uses target_parameters, experts, and what they are in"),
        ({"alora_invocation_tokens": [3]}, "it uses alora_invocation_tokens"),
        ({"init_lora_weights": "pissa_niter_4"}, "its start 'pissa_niter_4' changed the base too, by a randomised"),
        ({"init_lora_weights": "corda"}, "made from data that the adapter does not hold"),
        ({"init_lora_weights": "loftq"}, "quantised anew"),
        ({"init_lora_weights": "olora", "fan_in_fan_out": True}, "store their transpose"),
    ],
    ids=str,
)
def test_other_methods_are_refused(base: Path, tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    folder = write(tmp_path / "lora", factors(base, {Q0: 2}), **config)
    refused(folder, base, UnsupportedCheckpoint, reason)


@pytest.mark.parametrize(
    ("config", "error", "reason"),
    [
        ({"r": 3}, MalformedCheckpoint, "have rank 2; adapter_config.json says 3"),
        ({"r": 2, "rank_pattern": {"q_proj": 4}}, MalformedCheckpoint, "says 4"),
        ({"r": "2"}, MalformedCheckpoint, "says '2'"),
        ({"rank_pattern": ["q_proj"]}, MalformedCheckpoint, "rank_pattern is not an object"),
        ({"lora_alpha": "many"}, MalformedCheckpoint, "is 'many'; a number was expected"),
        ({"lora_alpha": None}, MalformedCheckpoint, "is None"),
        ({"lora_alpha": True}, MalformedCheckpoint, "is True"),
        ({"lora_alpha": math.nan}, MalformedCheckpoint, "is nan"),
        ({"lora_alpha": math.inf}, MalformedCheckpoint, "is inf"),
        ({"lora_alpha": 10**400}, MalformedCheckpoint, "a number was expected"),
        ({"alpha_pattern": {"q_proj": [1]}}, MalformedCheckpoint, "is [1]"),
        ({"alpha_pattern": {"(q_proj": 1}}, MalformedCheckpoint, "'(q_proj' is no regular expression"),
        ({"alpha_pattern": {"(?=q)q": 1}}, UnsupportedCheckpoint, "cannot be matched in linear time"),
        (
            {"bias": ["none"]},
            MalformedCheckpoint,
            """bias is "['none']"; "none" or "all" or""",
        ),
        ({"fan_in_fan_out": "false"}, MalformedCheckpoint, "fan_in_fan_out is 'false'; false or true was expected"),
        ({"use_dora": [0]}, MalformedCheckpoint, "use_dora is '[0]'"),
        ({"use_rslora": "no"}, MalformedCheckpoint, "use_rslora is 'no'"),
        ({"lora_bias": {}}, MalformedCheckpoint, "lora_bias is '{}'"),
    ],
    ids=str,
)
def test_config_that_makes_no_sense_is_refused(
    base: Path, tmp_path: Path, config: dict[str, Any], error: type[KinshipError], reason: str
) -> None:
    refused(write(tmp_path / "lora", factors(base, {Q0: 2}), **config), base, error, reason)


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        pytest.param({A: None}, MalformedCheckpoint, "a pair of A and B was expected", id="A is missing"),
        pytest.param({B: None}, MalformedCheckpoint, "a pair of A and B was expected", id="B is missing"),
        pytest.param({A: ones(3, 8)}, MalformedCheckpoint, "shapes [8, 2] and [3, 8]", id="ranks differ"),
        pytest.param({A: ones(8)}, MalformedCheckpoint, "shapes", id="a vector"),
        pytest.param({A: ones(2, 8, 1, 1)}, MalformedCheckpoint, "shapes", id="a convolution"),
        pytest.param({A: ones(0, 8), B: ones(8, 0)}, MalformedCheckpoint, "r at least 1", id="rank 0"),
        pytest.param({A: ones(9, 8), B: ones(8, 9)}, UnsupportedCheckpoint, "rank 9, larger", id="rank too high"),
        pytest.param({A: ones(2, 7)}, MismatchedModels, "of shape [8, 7]", id="too narrow"),
        pytest.param({B: ones(9, 2)}, MismatchedModels, "of shape [9, 8]", id="too high"),
        pytest.param({A: ones(2, 8, dtype=torch.int32)}, MalformedCheckpoint, "floats were", id="integer factor"),
        pytest.param({A: ones(2, 8) * math.nan}, NonFiniteWeights, "lora_A", id="NaN"),
        pytest.param({B: ones(8, 2) * math.inf}, NonFiniteWeights, "lora_B", id="infinity"),
        pytest.param({A.removeprefix("base_model.model."): ones(2, 8)}, MalformedCheckpoint, "twice", id="twice"),
        pytest.param(
            {f"base_model.model.{Q0}.lora_embedding_B": ones(8, 2), A: None},
            MalformedCheckpoint,
            "a pair of A and B",
            id="mixed",
        ),
        pytest.param(
            {f"base_model.model.{Q0}.lora_embedding_A": ones(2, 8), B: None},
            MalformedCheckpoint,
            "a pair of A",
            id="mixed B",
        ),
        pytest.param(
            {f"base_model.model.{Q0}.lora_magnitude_vector": ones(8)}, UnsupportedCheckpoint, "magnitude", id="DoRA"
        ),
        pytest.param(
            {f"base_model.model.{Q0}.lora_B.bias": ones(8)}, UnsupportedCheckpoint, "lora_B.bias", id="bias of a factor"
        ),
        pytest.param(
            {"base_model.model.other.lora_A.weight": ones(2, 8)}, MismatchedModels, "'other.weight'", id="other module"
        ),
        pytest.param(
            {"base_model.model.score.weight": ones(2, 8)}, MismatchedModels, "'score.weight'", id="other head"
        ),
        pytest.param(
            {"base_model.model.model.norm.weight": ones(9)},
            MismatchedModels,
            "replaces 'model.norm.weight'",
            id="resized",
        ),
        pytest.param(
            {"base_model.model.model.norm.weight": ones(8, dtype=torch.int64)}, MismatchedModels, "int64", id="integers"
        ),
    ],
)
def test_wrong_tensors_are_refused(
    base: Path, tmp_path: Path, changes: Tensors, error: type[KinshipError], reason: str
) -> None:
    tensors = {key: tensor for key, tensor in (factors(base, {Q0: 2}) | changes).items() if tensor is not None}
    refused(write(tmp_path / "lora", tensors), base, error, reason)


def test_adapter_of_another_base_is_refused(base: Path, make_model: MakeModel, tmp_path: Path) -> None:
    wider = make_model("wider", shapes={f"{Q0}.weight": (16, 16)})
    folder = write(tmp_path / "lora", factors(wider, {Q0: 2}))
    open_checkpoint(f"{wider}+{folder}").close()
    refused(folder, base, MismatchedModels, "in the base it has float32 of shape [8, 8]")


def test_integers_of_the_base_cannot_be_changed(base: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "lora", factors(base, {Q0: 2}))
    tensors = load_file(base / "model.safetensors")
    save_file(tensors | {f"{Q0}.weight": ones(8, 8, dtype=torch.int8)}, base / "model.safetensors")
    refused(folder, base, MismatchedModels, "int8")


def test_pickled_adapter_is_never_opened(base: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "lora", factors(base, {Q0: 2}))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    refused(folder, base, UnsupportedCheckpoint, "holds adapter_model.bin; adapter_model.safetensors was expected")


def test_adapter_without_weights_is_refused(base: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "lora", factors(base, {Q0: 2}))
    (folder / "adapter_model.safetensors").unlink()
    refused(folder, base, UnsupportedCheckpoint, "holds no weights")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'"LORA"', b"[" * 50_000])
def test_broken_config_is_malformed(base: Path, tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path / "lora", factors(base, {Q0: 2}))
    (folder / "adapter_config.json").write_bytes(content)
    refused(folder, base, MalformedCheckpoint, "adapter_config.json")


def test_adapter_alone_asks_for_its_base(base: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "lora", factors(base, {Q1: 2}))
    for _ in range(2):
        with pytest.raises(UnsupportedCheckpoint, match="is a LoRA adapter, not a whole model") as refusal:
            open_checkpoint(folder)
        assert "BASE+ADAPTER" in refusal.value.hint
        shutil.copy(base / "config.json", folder)  # trainers put one beside their adapters


def test_base_and_adapter_the_wrong_way_round_are_told(base: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "lora", factors(base, {Q0: 2}))
    with pytest.raises(UnsupportedCheckpoint, match="base is no LoRA adapter") as refusal:
        open_checkpoint(f"{folder}+{base}")
    assert "in that order" in refusal.value.hint


def test_model_with_an_adapter_beside_it_is_opened_without_it(base: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "both", factors(base, {Q0: 2}))
    shutil.copy(base / "model.safetensors", folder)
    with open_checkpoint(folder) as alone, open_checkpoint(base) as plain:
        assert alone.digest == plain.digest
    assert json.loads((folder / "adapter_config.json").read_text())["peft_type"] == "LORA"
