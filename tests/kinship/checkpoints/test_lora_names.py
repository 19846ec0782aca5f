"""Adapters name modules of the live model, whatever the names in the base's file are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from kinship.checkpoints.opening import open_checkpoint
from merging.merge import write_merge
from merging.recipe.schema import parse_recipe
from tests.kinship.checkpoints.test_unified import KINDS

SMALL = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def llava() -> Any:
    text = transformers.LlamaConfig(**SMALL, num_key_value_heads=2)
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    seen = transformers.CLIPVisionConfig(**vision, image_size=28, patch_size=14, projection_dim=16)
    config = transformers.LlavaConfig(text_config=text, vision_config=seen, image_token_index=39)
    return transformers.LlavaForConditionalGeneration(config)


CASES: dict[str, tuple[Callable[[], Any], list[str], str]] = {
    "mixtral": (KINDS["mixtral"], ["gate"], "block_sparse_moe.gate"),
    "llava": (llava, ["q_proj", "linear_1", "lm_head"], "q_proj"),
    "gemma3": (KINDS["gemma3"], ["q_proj"], "self_attn.q_proj"),
    "gpt_neox": (KINDS["gpt_neox"], ["embed_out", "lm_head", "query_key_value"], "query_key_value"),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_merged_adapter_is_the_live_one(kind: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    make, targets, changed = CASES[kind]
    torch.manual_seed(0)
    model = make().float()
    model.save_pretrained(tmp_path / "base")
    live = type(model).from_pretrained(tmp_path / "base")
    modules = {name.rpartition(".")[2] for name, _ in live.named_modules()}
    settings = peft.LoraConfig(r=2, target_modules=sorted(modules.intersection(targets)), init_lora_weights=False)
    try:
        adapted = peft.get_peft_model(live, settings)
    except ValueError:  # a router that is no linear layer in this version of transformers
        pytest.skip(f"peft cannot adapt {targets} of {kind}")
    adapted.save_pretrained(tmp_path / "lora")
    reference = f"{tmp_path / 'base'}+{tmp_path / 'lora'}"
    with open_checkpoint(reference) as opened:
        assert any(changed in name for name in opened.adapter.changes)  # type: ignore[attr-defined]
    content = {"merge_method": "linear", "models": [{"model": reference, "parameters": {"weight": 1}}]}
    folder = write_merge(parse_recipe(content), tmp_path / "out")
    merged, report = type(model).from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    want = adapted.merge_and_unload().state_dict()
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(tensor, want[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "RobertaForMaskedLM", "BertForSequenceClassification"])
def test_trained_biases_that_a_file_has_once(kind: str, tmp_path: Path) -> None:
    """BERT's head has its bias by two names, and peft writes it by both."""
    peft = pytest.importorskip("peft")
    config = getattr(transformers, f"{kind.partition('For')[0]}Config")(**SMALL)
    torch.manual_seed(0)
    getattr(transformers, kind)(config).save_pretrained(tmp_path / "base")
    model = getattr(transformers, kind).from_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["query", "dense"], bias="all"))
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    adapted.save_pretrained(tmp_path / "lora")
    content = {"merge_method": "passthrough", "models": [{"model": f"{tmp_path / 'base'}+{tmp_path / 'lora'}"}]}
    folder = write_merge(parse_recipe(content), tmp_path / "out")
    merged, report = type(model).from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.no_grad():
        ids = torch.arange(5, 25)[None]
        wanted, found = (each.eval()(input_ids=ids).logits for each in (adapted, merged))
    assert (wanted - found).abs().max() <= 1e-5


def gpt_oss() -> Any:
    config = transformers.GptOssConfig(
        **SMALL, num_key_value_heads=1, head_dim=8, num_local_experts=3, num_experts_per_tok=2
    )
    return transformers.GptOssForCausalLM(config)


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "gpt_oss"])
@pytest.mark.parametrize("targets", [["experts.gate_up_proj", "experts.down_proj"], ["1.mlp.experts.down_proj"]])
def test_factors_of_stacked_experts(kind: str, targets: list[str], tmp_path: Path) -> None:
    """Fused in the file (gpt-oss, which stores them transposed, too), or apart."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = (gpt_oss if kind == "gpt_oss" else KINDS[kind])().float()
    model.save_pretrained(tmp_path / "base")
    base = type(model).from_pretrained(tmp_path / "base")
    settings = {"rank_pattern": {"experts.down_proj": 3}, "alpha_pattern": {"experts.gate_up_proj": 5}}
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], target_parameters=targets, **settings)
    adapted = peft.get_peft_model(base, lora)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.copy_(0.3 * torch.randn_like(weight))
    adapted.save_pretrained(tmp_path / "lora")
    content = {"merge_method": "passthrough", "models": [{"model": f"{tmp_path / 'base'}+{tmp_path / 'lora'}"}]}
    folder = write_merge(parse_recipe(content), tmp_path / "out")
    merged = type(model).from_pretrained(folder)
    live = peft.PeftModel.from_pretrained(type(model).from_pretrained(tmp_path / "base"), tmp_path / "lora")
    with torch.no_grad():
        ids = torch.arange(5, 25)[None]
        plain, wanted, found = (each.eval()(input_ids=ids).logits for each in (model, live, merged))
    assert (wanted - plain).abs().max() > 1e-3
    assert (wanted - found).abs().max() <= 1e-5
