import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kinship import kinship_matrix, open_checkpoint
from kinship.checkpoints.tied import tied_heads
from kinship.errors import MismatchedModels
from kinship.measures.alignment import Selection, align, require_same_tensors

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
