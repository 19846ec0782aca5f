"""An extracted adapter is the fine-tune again: for peft, for our own reader, and as near as its rank allows."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.references import parse_reference
from kinship.errors import InvalidConfig, MismatchedModels, NonFiniteWeights, OutputExists
from merging.extraction.extract import Extraction, extract_lora
from merging.extraction.layout import Layout, Target
from merging.extraction.peft_folder import AdapterWriter
from tests.kinship.checkpoints.test_lora_names import gpt_oss
from tests.kinship.checkpoints.test_unified import KINDS, SMALL

EVERYTHING = ("embeddings", "norms", "biases", "others")


def llama(**settings: Any) -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, num_key_value_heads=1, **settings))


def qwen2() -> Any:  # biases of linear layers
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL, num_key_value_heads=1))


MAKERS: dict[str, Callable[[], Any]] = {
    "tied": lambda: llama(tie_word_embeddings=True),
    "own head": lambda: llama(tie_word_embeddings=False),
    "qwen2": qwen2,
    "gpt2": KINDS["gpt2"],
    "gpt_neox": KINDS["gpt_neox"],
    "mixtral": KINDS["mixtral"],
    "qwen2_moe": KINDS["qwen2_moe"],
    "gpt_oss": gpt_oss,
}


def tuned(folder: Path, make: Callable[[], Any], only: str = "") -> type:
    """A base and a fine-tune of it, all of whose weights whose names have ``only`` in them changed."""
    torch.manual_seed(0)
    model = make().float()
    with torch.no_grad():  # biases that are zero would hide mistakes
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
        model.save_pretrained(folder / "base")
        for name, weight in model.named_parameters():
            if only in name:
                weight.add_(0.02 * torch.randn_like(weight))
    model.save_pretrained(folder / "tuned")
    return type(model)


def extracted(folder: Path, out: str = "lora", **options: Any) -> Extraction:
    return extract_lora(folder / "tuned", folder / "base", folder / out, **options)


def adapted(folder: Path, made: Any, out: str = "lora") -> dict[str, torch.Tensor]:
    """What live peft makes of base and adapter, merged; it misses no key of it."""
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        live = peft.PeftModel.from_pretrained(made.from_pretrained(folder / "base"), folder / out)
        merged = live.merge_and_unload()
    assert not [str(each.message) for each in caught if "missing adapter keys" in str(each.message)]
    return dict(merged.state_dict())


@pytest.mark.parametrize("kind", MAKERS)
def test_at_full_rank_it_gives_the_fine_tune_back(kind: str, tmp_path: Path) -> None:
    made = tuned(tmp_path, MAKERS[kind])
    found = extracted(tmp_path, energy=1.0, save=EVERYTHING)
    assert all(module.error < 1e-6 * module.norm for module in found.modules)
    assert found.lost > 0 if found.left_out else found.relative_error < 1e-6
    wanted = made.from_pretrained(tmp_path / "tuned").state_dict()
    live = adapted(tmp_path, made)
    kept = {name for name in wanted if name.endswith(tuple(found.left_out))}
    assert all("bias" in name or "sinks" in name for name in kept)  # gpt-oss: biases of stacked experts
    for name in wanted.keys() - kept:
        torch.testing.assert_close(live[name], wanted[name], rtol=0, atol=1e-6, msg=name)
    base, model = tmp_path / "base", tmp_path / "tuned"
    with open_checkpoint(f"{base}+{tmp_path / 'lora'}") as ours, open_checkpoint(model) as whole:
        for name in whole.tensors.keys() - kept:
            np.testing.assert_allclose(ours.floats(name), whole.floats(name), rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["own head", "gpt2", "mixtral"])
def test_at_a_rank_its_error_is_that_of_the_svd(kind: str, tmp_path: Path) -> None:
    made = tuned(tmp_path, MAKERS[kind])
    found = extracted(tmp_path, rank=3)
    base, wanted = (made.from_pretrained(tmp_path / name).state_dict() for name in ("base", "tuned"))
    live = adapted(tmp_path, made)
    for module in found.modules:
        name = module.module + ("" if module.module + ".weight" not in base else ".weight")
        names = [name] if name in base else [each for each in base if each.startswith(f"{name}.")]
        totals = []
        for each in names:
            change = (wanted[each] - base[each]).double()
            tail = torch.linalg.svdvals(change)[..., 3:].norm()
            assert (live[each] - wanted[each]).double().norm() == pytest.approx(float(tail), rel=1e-4)
            totals.append((float(tail), float(change.norm())))
        assert any((module.error, module.norm) == pytest.approx(pair, rel=1e-5) for pair in totals)
        assert module.rank == 3


def test_energy_is_kept_by_the_least_rank(tmp_path: Path) -> None:
    tuned(tmp_path, MAKERS["own head"])
    found = extracted(tmp_path, energy=0.7)
    for module in found.modules:
        assert module.error**2 <= 0.3 * module.norm**2
    fewer = extract_lora(tmp_path / "tuned", tmp_path / "base", tmp_path / "less", rank=found.modules[0].rank - 1)
    assert fewer.modules[0].error ** 2 > 0.3 * fewer.modules[0].norm ** 2
    ranks = {module.rank for module in found.modules}
    assert len(ranks) > 1  # so that the config has patterns, by which peft loads it
    adapted(tmp_path, transformers.LlamaForCausalLM)


def test_what_did_not_change_gets_no_factors_and_what_is_not_asked_for_is_told(tmp_path: Path) -> None:
    made = tuned(tmp_path, MAKERS["tied"], only="layers.1")
    found = extracted(tmp_path)
    assert {module.module.split(".")[2] for module in found.modules} == {"1"}
    assert set(found.left_out) == {f"model.layers.1.{name}_layernorm.weight" for name in ("input", "post_attention")}
    assert all(reason.startswith("norms") for reason in found.left_out.values())
    assert found.lost > 0
    live, base = adapted(tmp_path, made), made.from_pretrained(tmp_path / "base").state_dict()
    assert torch.equal(live["model.layers.0.mlp.up_proj.weight"], base["model.layers.0.mlp.up_proj.weight"])


def test_a_longer_vocabulary_is_left_out_and_told(tmp_path: Path) -> None:
    tuned(tmp_path, MAKERS["tied"])
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "tuned")
    model.resize_token_embeddings(44, mean_resizing=False)
    model.save_pretrained(tmp_path / "tuned")
    found = extracted(tmp_path, save=EVERYTHING)
    assert "44 rows" in found.left_out["model.embed_tokens.weight"]


def test_a_model_that_is_an_adapter_comes_back_at_its_rank(tmp_path: Path) -> None:
    tuned(tmp_path, MAKERS["own head"])
    extracted(tmp_path, rank=2)
    again = extract_lora(f"{tmp_path / 'base'}+{tmp_path / 'lora'}", tmp_path / "base", tmp_path / "again", rank=2)
    assert again.relative_error < 1e-6


def test_bare_files_go_by_names(make_model: Callable[..., Path], tmp_path: Path) -> None:
    base = make_model("base")
    model = make_model("tuned", 1, base)
    found = extract_lora(model / "model.safetensors", base / "model.safetensors", tmp_path / "lora", energy=1.0)
    assert {module.module.rpartition(".")[2] for module in found.modules} == {"q_proj", "up_proj"}
    with open_checkpoint(f"{base}+{tmp_path / 'lora'}") as ours, open_checkpoint(model) as whole:
        name = "model.layers.0.mlp.up_proj.weight"
        np.testing.assert_allclose(ours.floats(name), whole.floats(name), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"rank": 2, "energy": 0.5}, {"rank": 0}, {"energy": 0.0}, {"energy": 1.5}], ids=str
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig):
        extract_lora("nowhere", "nowhere", tmp_path / "lora", **options)


def test_the_base_itself_has_nothing_to_extract(make_model: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(MismatchedModels, match="nothing to factorise"):
        extract_lora(make_model("base"), tmp_path / "base", tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_only_what_was_extracted_is_replaced(make_model: Callable[..., Path], tmp_path: Path) -> None:
    base = make_model("base")
    model = make_model("tuned", 1, base)
    extract_lora(model, base, tmp_path / "lora")
    extract_lora(model, base, tmp_path / "lora", rank=1, force=True)
    (tmp_path / "lora" / "SHA256SUMS").unlink()
    with pytest.raises(OutputExists, match=r"README\.md|adapter"):
        extract_lora(model, base, tmp_path / "lora", force=True)


def test_an_embedding_that_more_than_a_head_is_tied_to_stays(tmp_path: Path) -> None:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "vocab_size": 40}
    tuned(tmp_path, lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)))
    found = extracted(tmp_path, save=EVERYTHING)
    assert "tied to it" in found.left_out["shared.weight"]
    with (
        open_checkpoint(f"{tmp_path / 'base'}+{tmp_path / 'lora'}") as ours,
        open_checkpoint(tmp_path / "tuned") as whole,
    ):
        for module in found.modules:
            name = f"{module.module}.weight"
            np.testing.assert_allclose(ours.floats(name), whole.floats(name), rtol=0, atol=1e-6, err_msg=name)


def test_weights_that_are_no_numbers_are_named(make_model: Callable[..., Path], tmp_path: Path) -> None:
    base = make_model("base")
    model = make_model("tuned", 1, base)
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(NonFiniteWeights, match=r"model\.norm\.weight"):
        extract_lora(model, base, tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_a_module_that_is_kept_whole_is_there_with_all_its_tensors(tmp_path: Path) -> None:
    """Without its bias, which did not change, peft could not load a norm."""
    made = tuned(tmp_path, MAKERS["gpt2"], only="weight")
    found = extracted(tmp_path, energy=1.0, save=("norms",))
    assert any(name.endswith("ln_f.bias") for name in found.saved)
    live, wanted = adapted(tmp_path, made), made.from_pretrained(tmp_path / "tuned").state_dict()
    name = next(name for name in wanted if name.endswith("ln_f.weight"))
    torch.testing.assert_close(live[name], wanted[name])


def test_a_base_that_is_an_adapter_is_refused_since_nothing_reads_two(tmp_path: Path) -> None:
    tuned(tmp_path, MAKERS["own head"])
    extracted(tmp_path, rank=2)
    base = f"{tmp_path / 'base'}+{tmp_path / 'lora'}"
    with pytest.raises(InvalidConfig, match="itself an adapter") as caught:
        extract_lora(tmp_path / "tuned", base, tmp_path / "more")
    assert f"--base {tmp_path / 'base'}:" in str(caught.value.hint)
    assert not (tmp_path / "more").exists()


def test_a_model_of_another_kind_is_refused_though_tensors_have_its_names(tmp_path: Path) -> None:
    tuned(tmp_path, MAKERS["own head"])
    config = tmp_path / "base" / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"mistral"'))
    with pytest.raises(MismatchedModels, match=r"is a llama model, .* a mistral model"):
        extracted(tmp_path)
    assert not (tmp_path / "lora").exists()


def test_peft_is_told_the_base_s_revision_apart_from_its_name(tmp_path: Path) -> None:
    nothing = Layout((), (), {}, frozenset(), None)
    with AdapterWriter(tmp_path, parse_reference("org/base@v2"), nothing, None) as writer:
        writer.add_factors(Target("q", "q", ()), [(torch.ones(2, 1), torch.ones(1, 3))])
        writer.finish("lora", "nothing.")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", "v2")
    assert "base_model:\n- org/base\n" in (tmp_path / "README.md").read_text()
