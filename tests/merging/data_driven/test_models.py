"""Models made from checkpoints, beside what transformers itself makes of the folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import MismatchedModels, UnsupportedCheckpoint
from merging.data_driven.models import CheckpointWeights, load_causal_lm, require_alike, stacked

MakeLlama = Callable[..., Path]


@pytest.mark.parametrize("tied", [True, False])
def test_a_loaded_model_is_that_of_transformers(make_llama: MakeLlama, tied: bool) -> None:
    from transformers import AutoModelForCausalLM

    folder, ids = make_llama("model", tied=tied), torch.arange(20).reshape(2, 10)
    before = torch.get_rng_state()
    with open_checkpoint(folder) as checkpoint:
        model = load_causal_lm(checkpoint)
    assert torch.equal(torch.get_rng_state(), before)
    want = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, want(input_ids=ids).logits)
    assert not model.training


def test_a_tied_head_is_no_tensor_of_its_own(make_llama: MakeLlama) -> None:
    folder = make_llama("model")
    tensors = load_file(folder / "model.safetensors")
    with open_checkpoint(folder) as checkpoint:
        assert set(CheckpointWeights(checkpoint)) == tensors.keys()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with open_checkpoint(folder) as checkpoint:
        weights = CheckpointWeights(checkpoint)
        assert len(weights) == len(tensors) - 1
        assert "lm_head.weight" not in list(weights)
        for name, tensor in weights.items():
            assert torch.equal(tensor, tensors[name])
        load_causal_lm(checkpoint)


def test_tensors_without_a_place_and_places_without_a_tensor_are_named(make_llama: MakeLlama) -> None:
    folder = make_llama("model")
    tensors = load_file(folder / "model.safetensors")
    changes: list[tuple[str, dict[str, torch.Tensor], list[str]]] = [
        ("extra", {"model.extra.weight": torch.zeros(2)}, []),
        ("shape", {"model.norm.weight": torch.zeros(3)}, []),
        ("model.norm.weight", {}, ["model.norm.weight"]),
    ]
    for named, added, removed in changes:
        changed = {name: tensor for name, tensor in (tensors | added).items() if name not in removed}
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        with (
            open_checkpoint(folder) as checkpoint,
            pytest.raises(MismatchedModels, match="norm" if named == "shape" else named),
        ):
            load_causal_lm(checkpoint)


def test_a_bare_file_cannot_be_run(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "bare.safetensors")
    with (
        open_checkpoint(tmp_path / "bare.safetensors") as checkpoint,
        pytest.raises(UnsupportedCheckpoint, match=r"config\.json"),
    ):
        load_causal_lm(checkpoint)


def test_models_must_hold_the_same_tensors() -> None:
    one, other = {"a": torch.zeros(2)}, {"a": torch.zeros(2), "b": torch.zeros(2)}
    require_alike([one, one])
    with pytest.raises(MismatchedModels, match="model 1 has the tensor 'b', model 0 has not"):
        require_alike([one, other])
    with pytest.raises(MismatchedModels, match="model 0 has the tensor 'b', model 1 has not"):
        require_alike([other, one])
    with pytest.raises(MismatchedModels, match=r"'a' has shape \[2\] in one model and \[3\]"):
        stacked("a", [torch.zeros(2), torch.zeros(3)])


@pytest.mark.parametrize(
    ("dtypes", "wide"),
    [
        ((torch.bfloat16, torch.float16), torch.float32),
        ((torch.float8_e4m3fn, torch.bfloat16), torch.float32),
        ((torch.float32, torch.float64), torch.float64),
    ],
)
def test_tensors_are_widened(dtypes: tuple[torch.dtype, torch.dtype], wide: torch.dtype) -> None:
    found = stacked("a", [torch.ones(2).to(dtype) for dtype in dtypes])
    assert found.dtype == wide
    assert found.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_what_is_no_causal_language_model_is_refused(tmp_path: Path) -> None:
    import transformers

    small = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    transformers.BertForMaskedLM(transformers.BertConfig(**small, num_attention_heads=2)).save_pretrained(
        tmp_path / "bert"
    )
    sizes = {"vocab_size": 40, "d_model": 16, "d_ff": 24, "d_kv": 8, "num_layers": 1, "num_heads": 2}
    transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)).save_pretrained(tmp_path / "t5")
    for kind, name in (("bert", "BertForMaskedLM"), ("t5", "T5ForConditionalGeneration")):
        with (
            open_checkpoint(tmp_path / kind) as checkpoint,
            pytest.raises(UnsupportedCheckpoint, match=f"is a {name}; what measures") as refusal,
        ):
            load_causal_lm(checkpoint)
        assert "without data" in refusal.value.hint


def test_tensors_that_are_other_parameters_are_refused_and_old_buffers_passed_over(tmp_path: Path) -> None:
    import transformers

    small = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    config = transformers.GPTNeoXConfig(**small, num_attention_heads=2)
    transformers.GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "pythia")
    with (
        open_checkpoint(tmp_path / "pythia") as checkpoint,
        pytest.raises(UnsupportedCheckpoint, match=r"stores 'embed_out.weight', of which transformers makes 'lm_head"),
    ):
        load_causal_lm(checkpoint)
    llama = transformers.LlamaConfig(**small, num_attention_heads=2)
    transformers.LlamaForCausalLM(llama).save_pretrained(tmp_path / "llama")
    tensors = load_file(tmp_path / "llama/model.safetensors")
    old = tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(old, tmp_path / "llama/model.safetensors", metadata={"format": "pt"})
    with open_checkpoint(tmp_path / "llama") as checkpoint:
        assert set(CheckpointWeights(checkpoint)) == tensors.keys()
        load_causal_lm(checkpoint)
