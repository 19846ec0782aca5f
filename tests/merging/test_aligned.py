"""A recipe's ``align:`` undoes permutations, and changes nothing that a model computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, MismatchedModels, UnsupportedCheckpoint
from merging.merge import planned, write_merge
from merging.rebasin.aligned import cosine
from merging.rebasin.matching import permute
from merging.rebasin.symmetries import llama_symmetries
from merging.recipe.schema import parse_recipe

SIZES: dict[str, Any] = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """A model, and the same with all its units in another order."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, **HEADS, tie_word_embeddings=True, max_position_embeddings=32)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "one")
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "two")
    tensors = load_file(tmp_path / "one" / "model.safetensors")
    symmetries = llama_symmetries(tensors, 4, 2)
    generator = np.random.default_rng(0)
    orders = {each.name: generator.permutation(each.units) for each in symmetries if each.members == 1}
    moved = permute(tensors, symmetries, orders)
    save_file(moved, tmp_path / "two" / "model.safetensors", metadata={"format": "pt"})
    return [tmp_path / "one", tmp_path / "two"]


def recipe(pair: list[Path], **changes: Any) -> Any:
    models = [{"model": str(model), "parameters": {"weight": 0.5}} for model in pair]
    return parse_recipe({"merge_method": "linear", "models": models, "align": str(pair[0]), **changes})


def test_the_average_with_a_permutation_of_itself_is_the_model(pair: list[Path], tmp_path: Path) -> None:
    one = load_file(pair[0] / "model.safetensors")
    plain = load_file(write_merge(recipe(pair, align=None), tmp_path / "plain") / "model.safetensors")
    found = load_file(write_merge(recipe(pair), tmp_path / "out") / "model.safetensors")
    assert any(not torch.allclose(plain[name], one[name]) for name in one)
    for name, tensor in one.items():
        torch.testing.assert_close(found[name], tensor)


def test_an_aligned_model_computes_the_same(pair: list[Path], tmp_path: Path) -> None:
    content = {"merge_method": "passthrough", "models": [{"model": str(pair[1])}], "align": {"to": str(pair[0])}}
    for residual in (True, False):
        content["align"] = {"to": str(pair[0]), "residual": residual}
        out = write_merge(parse_recipe(content), tmp_path / f"out-{residual}")
        ids = torch.arange(3, 20)[None]
        with torch.no_grad():
            wanted, found = (
                transformers.AutoModelForCausalLM.from_pretrained(each)(input_ids=ids).logits for each in (pair[1], out)
            )
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        with open_checkpoint(pair[0]) as one, open_checkpoint(pair[1]) as two, open_checkpoint(out) as three:
            assert cosine(one, three) > cosine(one, two)
            assert (cosine(one, three) > 0.999) == residual


def test_what_cannot_be_aligned_is_refused_from_headers(pair: list[Path], make_model: Callable[..., Path]) -> None:
    odd = make_model("odd", shapes={"conv.weight": (4, 4)})
    with pytest.raises(MismatchedModels), planned(recipe([pair[0], odd])):
        pass
    other = make_model("other", shapes={"conv.weight": (4, 4)})
    with pytest.raises(UnsupportedCheckpoint, match="Llama-type"), planned(recipe([odd, other])):
        pass
    half, whole = make_model("half"), make_model("whole", 1)  # of q and up projections alone
    with pytest.raises(UnsupportedCheckpoint, match="no projections of groups"), planned(recipe([half, whole])):
        pass


def test_alignment_is_no_merge_method_and_no_part_of_inner_recipes() -> None:
    with pytest.raises(InvalidConfig, match="no merge_method") as refusal:
        parse_recipe({"merge_method": "rebasin", "models": [{"model": "a"}]})
    assert "kinship methods rebasin" in refusal.value.hint
    inner = {"merge_method": "passthrough", "models": [{"model": "a"}], "align": "b"}
    with pytest.raises(InvalidConfig, match="'align'"):
        parse_recipe({"merge_method": "passthrough", "models": [{"model": inner}]})
