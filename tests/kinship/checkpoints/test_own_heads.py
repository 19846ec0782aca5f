"""Tied models beside models with a head of their own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship import kinship_matrix, open_checkpoint
from kinship.checkpoints.own_heads import with_own_heads
from kinship.checkpoints.tied import tied_pair
from kinship.measures.alignment import require_same_tensors
from merging.merge import write_merge
from merging.recipe.schema import parse_recipe

EMBEDDING, HEAD, LAYER = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.up_proj.weight"


def model(folder: Path, seed: int, *, tied: bool, dtype: torch.dtype = torch.float32, **config: object) -> Path:
    generator = torch.Generator().manual_seed(seed)
    names = (EMBEDDING, LAYER) if tied else (EMBEDDING, LAYER, HEAD)
    tensors = {name: torch.randn(6, 4, generator=generator).to(dtype) for name in names}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": tied} | config))
    return folder


def test_a_tied_model_lends_its_embedding_as_its_head(tmp_path: Path) -> None:
    base = model(tmp_path / "base", 0, tied=True, dtype=torch.bfloat16, text_config={"tie_word_embeddings": True})
    own = model(tmp_path / "own", 1, tied=False)
    with open_checkpoint(base) as one, open_checkpoint(own) as other:
        lent, same = with_own_heads([one, other])
        require_same_tensors(lent, [same])
        assert same is other
        assert torch.equal(lent.tensor(HEAD), one.tensor(EMBEDDING))
        assert torch.equal(lent.read(HEAD, 5, 7), one.read(EMBEDDING, 5, 7))
        assert lent.config == {"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": False}}
        assert (lent.id, lent.path, one.config["tie_word_embeddings"]) == (one.id, one.path, True)
        assert lent.digest != one.digest
        lent.close()
        assert torch.equal(lent.tensor(HEAD), one.tensor(EMBEDDING))


def test_models_that_are_all_tied_stay_so(tmp_path: Path) -> None:
    pair = [open_checkpoint(model(tmp_path / name, seed, tied=True)) for seed, name in enumerate("ab")]
    assert with_own_heads(pair) == pair
    bare = open_checkpoint(model(tmp_path / "bare", 3, tied=False) / "model.safetensors")
    assert with_own_heads([*pair, bare]) == [*pair, bare]  # no config says that its head is not the embedding


@pytest.mark.parametrize("tied_base", [True, False])
def test_kinship_compares_heads_with_what_they_were(tied_base: bool, tmp_path: Path) -> None:
    folders = [
        model(tmp_path / "base", 0, tied=tied_base),
        model(tmp_path / "one", 1, tied=True),
        model(tmp_path / "two", 2, tied=False),
    ]
    found = kinship_matrix(folders[1:], folders[0], "cosine")
    assert (found.tensors, found.left_out) == (3, {})
    tensors = [load_file(folder / "model.safetensors") for folder in folders]
    flat = [
        np.concatenate([each.get(name, each[EMBEDDING]).double().numpy().ravel() for name in (EMBEDDING, HEAD, LAYER)])
        for each in tensors
    ]
    one, two = flat[1] - flat[0], flat[2] - flat[0]
    assert found.values[0, 1] == pytest.approx(one @ two / np.linalg.norm(one) / np.linalg.norm(two), abs=1e-6)


@pytest.mark.parametrize(
    ("config", "pair"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, (HEAD, EMBEDDING)),
        ({}, (HEAD, EMBEDDING)),
        ({"architectures": ["LlamaForSequenceClassification"]}, None),
        ({"architectures": ["BertForMaskedLM"]}, None),
        ({"is_encoder_decoder": True}, None),
        ({"tie_word_embeddings": False}, None),
    ],
    ids=str,
)
def test_what_is_tied_is_told_by_the_config(
    config: dict[str, object], pair: tuple[str, str] | None, tmp_path: Path
) -> None:
    assert tied_pair(open_checkpoint(model(tmp_path / "base", 0, tied=True, **config))) == pair


def test_a_head_that_differs_from_the_embedding_it_is_said_to_be_is_its_own(tmp_path: Path) -> None:
    """As merging an adapter with a trained head leaves it; transformers loads both."""
    import transformers

    small = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(**small, num_attention_heads=2, tie_word_embeddings=True)
    for seed, name in enumerate(("tied", "own")):
        torch.manual_seed(seed)
        transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / name)
    file = tmp_path / "own/model.safetensors"
    save_file(load_file(file) | {HEAD: torch.randn(40, 16)}, file, metadata={"format": "pt"})
    live = [transformers.LlamaForCausalLM.from_pretrained(tmp_path / name) for name in ("tied", "own")]
    with open_checkpoint(tmp_path / "own") as own, open_checkpoint(tmp_path / "tied") as tied:
        assert own.config["tie_word_embeddings"] is False
        assert tied.config["tie_word_embeddings"] is True
    pair = [{"model": str(tmp_path / name), "parameters": {"weight": 0.5}} for name in ("tied", "own")]
    folder = write_merge(parse_recipe({"merge_method": "linear", "models": pair}), tmp_path / "out")
    merged = transformers.LlamaForCausalLM.from_pretrained(folder)
    for name, weight in merged.state_dict().items():
        one, other = (model.state_dict()[name] for model in live)
        torch.testing.assert_close(weight, (one + other) / 2, rtol=1e-6, atol=1e-6)
