import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship import kinship_matrix, open_checkpoint
from kinship.checkpoints.own_heads import with_own_heads
from kinship.checkpoints.tied import tied_heads
from kinship.errors import MismatchedModels
from kinship.measures.alignment import Selection, align, require_same_tensors
from merging.merge import write_merge
from merging.recipe.schema import parse_recipe

EMBEDDING, HEAD, LAYER = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.up_proj.weight"
TIED = {"tie_word_embeddings": True}


def model(folder: Path, seed: int, head: str | None, **config: object) -> Path:
    """A folder with an embedding and a layer; ``head`` is "twice" the embedding, "own", or not stored."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(6, 4, generator=generator) for name in (EMBEDDING, LAYER)}
    if head == "twice":
        tensors[HEAD] = tensors[EMBEDDING].clone()
    elif head == "own":
        tensors[HEAD] = torch.randn(6, 4, generator=generator)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_tied_head_counts_once_however_often_it_is_stored(tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "one", "two")):
        (tmp_path / name).mkdir()
        model(tmp_path / name / "once", seed, None, **TIED)
        model(tmp_path / name / "twice", seed, "twice", **TIED)
    wanted = kinship_matrix([tmp_path / "one/once", tmp_path / "two/once"], tmp_path / "base/once")
    assert wanted.left_out == {}
    for stored in (("twice", "twice", "twice"), ("once", "twice", "once"), ("twice", "once", "twice")):
        base, *models = (tmp_path / name / way for name, way in zip(("base", "one", "two"), stored, strict=True))
        found = kinship_matrix(models, base)
        np.testing.assert_array_equal(found.values, wanted.values)
        assert found.tensors == 2
        assert found.left_out[HEAD].startswith(f"tied to {EMBEDDING} in ")


def test_a_model_without_a_head_has_a_tied_one_unless_its_config_denies_it(tmp_path: Path) -> None:
    base = open_checkpoint(model(tmp_path / "base", 0, "own"), id="base")
    silent = open_checkpoint(model(tmp_path / "silent", 1, None), id="silent")
    denying = open_checkpoint(model(tmp_path / "denying", 2, None, tie_word_embeddings=False), id="denying")
    assert align(base, [silent]).left_out == {HEAD: f"tied to {EMBEDDING} in silent"}
    assert align(base, [denying]).left_out == {HEAD: "missing from denying"}


def test_heads_of_their_own_are_compared(tmp_path: Path) -> None:
    pair = [open_checkpoint(model(tmp_path / name, seed, "own")) for seed, name in enumerate("ab")]
    denied = open_checkpoint(model(tmp_path / "c", 3, "own", tie_word_embeddings=False))
    assert align(pair[0], [pair[1], denied]).left_out == {}


def test_a_config_of_text_and_images_says_it_inside(tmp_path: Path) -> None:
    base = open_checkpoint(model(tmp_path / "base", 0, "twice", text_config=TIED), id="base")
    assert tied_heads([base]) == {HEAD: f"tied to {EMBEDDING} in base"}


def test_what_is_not_wanted_is_said_to_be_so(tmp_path: Path) -> None:
    base = open_checkpoint(model(tmp_path / "base", 0, "twice", **TIED))
    found = align(base, [base], Selection(exclude="lm_head"))
    assert found.left_out == {HEAD: "excluded by 'lm_head'"}


def test_a_head_without_an_embedding_like_it_is_a_tensor_like_any(tmp_path: Path) -> None:
    save_file({HEAD: torch.ones(3, 4), EMBEDDING: torch.ones(6, 4)}, tmp_path / "odd.safetensors")
    save_file({EMBEDDING: torch.ones(6, 4)}, tmp_path / "without.safetensors")
    odd, without = (open_checkpoint(tmp_path / f"{name}.safetensors") for name in ("odd", "without"))
    assert tied_heads([odd, without]) == {}


def test_merging_says_what_to_do_about_a_head_stored_twice(tmp_path: Path) -> None:
    twice = open_checkpoint(model(tmp_path / "twice", 0, "twice", **TIED), id="twice")
    once = open_checkpoint(model(tmp_path / "once", 1, None, **TIED), id="once")
    for pair in ((twice, once), (once, twice)):
        with pytest.raises(MismatchedModels, match=r"twice has the tensor 'lm_head\.weight'") as refusal:
            require_same_tensors(pair[0], [pair[1]])
        assert "save_pretrained" in refusal.value.hint
        assert "tied to" in refusal.value.hint


# Real architectures


def written(kind: str, folder: Path) -> Any:
    """A tiny model of an architecture, saved; as transformers loads it again."""
    import transformers

    small = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1}
    both = {f"{side}_{what}": count for side in ("encoder", "decoder") for what, count in BART.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = {
            "mamba": lambda: transformers.MambaForCausalLM(transformers.MambaConfig(**small, state_size=4)),
            "bert": lambda: transformers.BertForMaskedLM(
                transformers.BertConfig(**small, intermediate_size=24, num_attention_heads=2)
            ),
            "t5": lambda: transformers.T5ForConditionalGeneration(
                transformers.T5Config(vocab_size=40, d_model=16, d_ff=24, d_kv=8, num_layers=1, num_heads=2)
            ),
            "bart": lambda: transformers.BartForConditionalGeneration(
                transformers.BartConfig(vocab_size=40, d_model=16, max_position_embeddings=32, **both)
            ),
            "opt": lambda: transformers.OPTForCausalLM(
                transformers.OPTConfig(
                    **small, ffn_dim=24, num_attention_heads=2, word_embed_proj_dim=8, max_position_embeddings=32
                )
            ),
        }[kind]()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder)


BART = {"layers": 1, "attention_heads": 2, "ffn_dim": 24}


@pytest.mark.parametrize("kind", ["mamba", "bert", "t5", "bart", "opt"])
def test_what_is_stored_twice_is_what_transformers_ties(kind: str, tmp_path: Path) -> None:
    state = written(kind, tmp_path / "once").state_dict()
    once = open_checkpoint(tmp_path / "once", id="once")
    stored = {state[name].data_ptr(): name for name in once.tensors}
    again = {name: stored[tensor.data_ptr()] for name, tensor in state.items() if name not in once.tensors}
    assert again
    (tmp_path / "twice").mkdir()
    for file in (tmp_path / "once").glob("*.json"):
        shutil.copy(file, tmp_path / "twice")
    every = {name: tensor.clone() for name, tensor in state.items()}
    save_file(every, tmp_path / "twice/model.safetensors", metadata={"format": "pt"})
    twice = open_checkpoint(tmp_path / "twice", id="twice")
    both = {head: f"tied to {table} in once, twice" for head, table in again.items()}
    assert tied_heads([once, twice]) == both
    assert tied_heads([twice, once]).keys() == again.keys()
    assert tied_heads([once]) == {}
    assert set(align(once, [twice]).names) == once.tensors.keys()
    pair = {"merge_method": "linear", "models": [{"model": str(tmp_path / name)} for name in ("twice", "once")]}
    pair["parameters"] = {"weight": 0.5}
    folder = write_merge(parse_recipe(pair), tmp_path / "out")
    assert load_file(folder / "model.safetensors").keys() == once.tensors.keys()


def test_a_tied_model_beside_one_with_a_head_of_its_own(tmp_path: Path) -> None:
    state = written("mamba", tmp_path / "tied").state_dict()
    (tmp_path / "own").mkdir()
    config = json.loads((tmp_path / "tied/config.json").read_text()) | {"tie_word_embeddings": False}
    (tmp_path / "own/config.json").write_text(json.dumps(config))
    tensors = {name: tensor.clone() for name, tensor in state.items()} | {HEAD: torch.randn(40, 16)}
    save_file(tensors, tmp_path / "own/model.safetensors", metadata={"format": "pt"})
    tied, own = (open_checkpoint(tmp_path / name) for name in ("tied", "own"))
    assert HEAD not in tied.tensors
    lent, _ = with_own_heads([tied, own])
    require_same_tensors(lent, [own])
    assert torch.equal(lent.tensor(HEAD), tied.tensor("backbone.embeddings.weight"))
