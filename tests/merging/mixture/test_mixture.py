"""Mixtures of experts are checkpoints of transformers' own classes, and do what their dense models do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

from kinship.errors import InvalidConfig, MismatchedModels, UnsupportedCheckpoint
from merging.merge import write_merge
from merging.mixture.recipe import load_any_recipe, parse_mixture
from merging.output.verify import verify_folder
from merging.recipe.schema import Recipe

SMALL = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32}
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("Llama", {"tie_word_embeddings": True}, "MixtralForCausalLM"),
    "mistral": ("Mistral", {"tie_word_embeddings": False, "head_dim": 12}, "MixtralForCausalLM"),
    "qwen2": ("Qwen2", {}, "Qwen2MoeForCausalLM"),
    "qwen3": ("Qwen3", {"head_dim": 12}, "Qwen3MoeForCausalLM"),
}
IDS = torch.tensor([[3, 4, 5, 6, 7, 8, 9, 10]])

Dense = Callable[..., Path]


@pytest.fixture
def dense(tmp_path: Path) -> Dense:
    """Write a dense model with a tokenizer of letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({letter: id for id, letter in enumerate("? abcdefghijklmnop")}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")

    def make(kind: str, name: str, seed: int = 0, **changes: Any) -> Path:
        family, settings, _ = KINDS[kind]
        config = getattr(transformers, f"{family}Config")(**SMALL | settings | changes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = getattr(transformers, f"{family}ForCausalLM")(config)
            for parameter in model.parameters():
                parameter.data.add_(0.2 * torch.randn(parameter.shape))
        model.save_pretrained(tmp_path / name)
        transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?").save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


def assembled(folder: Path, content: dict[str, Any], **options: Any) -> tuple[Path, Any]:
    """The folder, and the model that transformers loads from it, with nothing missing or too much."""
    out = write_merge(parse_mixture(content), folder, **options)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    return out, model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_one_expert_repeated_is_the_dense_model(kind: str, dense: Dense, tmp_path: Path) -> None:
    base = dense(kind, "base")
    experts = [{"source_model": str(base)}] * 3
    content = {"base_model": str(base), "gate_mode": "random", "experts": experts}
    folder, model = assembled(tmp_path / "out", content)
    assert type(model).__name__ == KINDS[kind][2]
    wanted = logits(transformers.AutoModelForCausalLM.from_pretrained(base))
    assert (logits(model) - wanted).abs().max() <= 1e-5
    assert model.generate(input_ids=IDS, max_new_tokens=3, do_sample=False).shape == (1, 11)
    assert all(check.ok is not False for check in verify_folder(folder)), verify_folder(folder)


def test_experts_are_where_they_belong(dense: Dense, tmp_path: Path) -> None:
    base, other = dense("llama", "base"), dense("llama", "other", 1)
    experts = [{"source_model": str(base)}, {"source_model": str(other)}]
    out, _ = assembled(tmp_path / "out", {"base_model": str(base), "gate_mode": "random", "experts": experts})
    stored, rest = load_file(out / "model.safetensors"), load_file(base / "model.safetensors")
    parts = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
    for number, source in enumerate((base, other)):
        own = load_file(source / "model.safetensors")
        for layer in range(2):
            for part, name in parts.items():
                found = stored.pop(f"model.layers.{layer}.block_sparse_moe.experts.{number}.{part}.weight")
                assert torch.equal(found, own[f"model.layers.{layer}.mlp.{name}.weight"])
    for name, tensor in stored.items():
        assert "gate" in name or torch.equal(tensor, rest[name])


def test_gates_are_hidden_states_of_prompts(dense: Dense, tmp_path: Path) -> None:
    base, other = dense("llama", "base"), dense("llama", "other", 1)
    experts = [
        {"source_model": str(base), "positive_prompts": ["abc", "de"], "negative_prompts": ["p"]},
        {"source_model": str(other), "positive_prompts": ["mno"]},
    ]
    live = transformers.AutoModelForCausalLM.from_pretrained(base)
    tokens = transformers.AutoTokenizer.from_pretrained(base)

    def states(prompt: str) -> torch.Tensor:
        with torch.no_grad():
            found = live(**tokens(prompt, return_tensors="pt"), output_hidden_states=True).hidden_states
        return torch.stack(found[:2])[:, 0]

    table = live.get_input_embeddings().weight.detach()
    wanted = {
        "hidden": [(states("abc")[:, -1] + states("de")[:, -1]) / 2 - states("p")[:, -1], states("mno")[:, -1]],
        "hidden_avg": [(states("abc").mean(1) + states("de").mean(1)) / 2 - states("p").mean(1), states("mno").mean(1)],
        "cheap_embed": [
            (table[[2, 3, 4]].sum(0) + table[[5, 6]].sum(0) - table[17]).expand(2, -1),
            table[[14, 15, 16]].sum(0).expand(2, -1),
        ],
    }
    for mode, rows in wanted.items():
        out, _ = assembled(tmp_path / mode, {"base_model": str(base), "gate_mode": mode, "experts": experts})
        stored = load_file(out / "model.safetensors")
        for layer in range(2):
            found = stored[f"model.layers.{layer}.block_sparse_moe.gate.weight"]
            for row, vector in zip(found, rows, strict=True):
                torch.testing.assert_close(row, vector[layer] / vector[layer].norm(), rtol=1e-5, atol=1e-6)


def test_a_shared_expert_adds_its_share(dense: Dense, tmp_path: Path) -> None:
    """With a residual scale of 0 it adds nothing, whatever its gate says."""
    base, other = dense("qwen2", "base"), dense("qwen2", "other", 1)
    experts = [{"source_model": str(base)}] * 2
    content = {"base_model": str(base), "gate_mode": "random", "experts": experts}
    wanted = logits(transformers.AutoModelForCausalLM.from_pretrained(base))
    shared = [{"source_model": str(other), "residual_scale": 0.0}]
    _, model = assembled(tmp_path / "none", content | {"shared_experts": shared})
    assert (logits(model) - wanted).abs().max() <= 1e-5
    shared = [{"source_model": str(other), "residual_scale": 0.5}]
    out, model = assembled(tmp_path / "half", content | {"shared_experts": shared})
    assert (logits(model) - wanted).abs().max() > 1e-3
    stored, own = load_file(out / "model.safetensors"), load_file(other / "model.safetensors")
    name = "model.layers.0.mlp.{}down_proj.weight"
    assert torch.equal(stored[name.format("shared_expert.")], own[name.format("")] / 2)


def test_gates_are_drawn_by_the_seed(dense: Dense, tmp_path: Path) -> None:
    base = dense("qwen3", "base")
    content = {"base_model": str(base), "gate_mode": "uniform_random", "experts": [{"source_model": str(base)}] * 2}
    gates = [
        load_file(assembled(tmp_path / f"{number}", content, seed=seed)[0] / "model.safetensors")[
            "model.layers.1.mlp.gate.weight"
        ]
        for number, seed in enumerate((1, 1, 2))
    ]
    assert torch.equal(gates[0], gates[1])
    assert not torch.equal(gates[0], gates[2])
    assert gates[0].abs().max() <= 0.25
    assert '"seed": 2' in (tmp_path / "2" / "lineage.json").read_text()


def test_mergekit_moe_s_files_are_read(dense: Dense, tmp_path: Path) -> None:
    base = dense("llama", "base")
    path = tmp_path / "moe.yml"
    content = {
        "base_model": {"model": str(base)},
        "gate_mode": "cheap_embed",
        "dtype": "bfloat16",
        "experts": [{"source_model": str(base), "positive_prompts": ["a"], "noise_scale": 0}] * 2,
    }
    path.write_text(yaml.safe_dump(content))
    recipe = load_any_recipe(path)
    assert not isinstance(recipe, Recipe)
    folder = write_merge(recipe, tmp_path / "out")
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    again = load_any_recipe(folder / "mergekit_config.yml")
    assert again == recipe


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"experts_per_token": 3}, "3 of 2 experts"),
        ({"gate_mode": "hidden"}, "has no positive_prompts"),
        ({"gate_mode": "hiden"}, "hiden"),
        ({"shared_experts": [{"source_model": "a"}] * 2}, "2 shared experts"),
        ({"experts": [{"source_model": "a", "noise_scale": 0.1}] * 2}, "noise_scale of a is 0.1"),
        ({"expert": []}, "unknown key 'expert'"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(change: dict[str, Any], said: str) -> None:
    content = {"base_model": "base", "gate_mode": "random", "experts": [{"source_model": "a"}] * 2}
    with pytest.raises(InvalidConfig, match=said):
        parse_mixture(content | change)


def test_models_that_become_no_mixture_are_refused(dense: Dense, tmp_path: Path) -> None:
    base = dense("llama", "base")
    content = {"base_model": str(base), "gate_mode": "random", "experts": [{"source_model": str(base)}] * 2}
    shared = {"shared_experts": [{"source_model": str(base)}]}
    with pytest.raises(InvalidConfig, match="has no shared experts"):
        write_merge(parse_mixture(content | shared), tmp_path / "out")
    with pytest.raises(InvalidConfig, match="becomes a mixtral"):
        write_merge(parse_mixture(content | {"architecture": "qwen3"}), tmp_path / "out")
    wider = dense("llama", "wider", intermediate_size=32)
    with pytest.raises(MismatchedModels, match="not of the form"):
        write_merge(parse_mixture(content | {"experts": [{"source_model": str(wider)}] * 2}), tmp_path / "out")
    biased = dense("llama", "biased", attention_bias=True)
    with pytest.raises(UnsupportedCheckpoint, match="attention_bias"):
        write_merge(parse_mixture(content | {"base_model": str(biased)}), tmp_path / "out")


def test_an_expert_of_another_kind_is_refused_though_its_mlps_fit(dense: Dense, tmp_path: Path) -> None:
    base, other = dense("llama", "base"), dense("qwen2", "other")
    content = {"base_model": str(base), "gate_mode": "random", "experts": [{"source_model": str(other)}] * 2}
    with pytest.raises(MismatchedModels, match="is a qwen2 model; experts of a mixtral are llama or mistral models"):
        write_merge(parse_mixture(content), tmp_path / "out")
    bent = dense("mistral", "bent", hidden_act="gelu")
    with pytest.raises(MismatchedModels, match="compute with gelu"):
        write_merge(parse_mixture(content | {"experts": [{"source_model": str(bent)}] * 2}), tmp_path / "out")
    mistral = dense("mistral", "mistral")
    assembled(tmp_path / "out", content | {"experts": [{"source_model": str(base)}, {"source_model": str(mistral)}]})
