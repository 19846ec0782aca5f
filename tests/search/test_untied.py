"""A search over a tied base of which an adapter trained the embedding alone: offspring have a head of their own."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evaluators.base import Candidate
from evaluators.live import LiveModel
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.own_heads import with_own_heads
from search.config import parse_config
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME
from search.running.coordinator import Search
from service.answers.score import frame
from tests.evaluators.conftest import write_llama
from tests.kinship.live_adapters import live, train


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "base", tie=True)


@pytest.fixture
def founders(base: Path, tmp_path: Path) -> dict[str, str]:
    whole = train(base, tmp_path / "whole", {"modules_to_save": ["embed_tokens"]})
    plain = train(base, tmp_path / "plain", {}, seed=2)
    return {"whole": f"{base}+{whole}", "plain": f"{base}+{plain}"}


def test_a_generation_is_scored_and_written_untied(base: Path, founders: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("abc = cab\nhad = bad\nfed = fab\nace = bag\n" * 3)
    config = parse_config(
        {
            "base": str(base),
            "founders": founders,
            "evaluate": {"perplexity": [{"file": str(tmp_path / "text.txt"), "documents": "lines"}]},
            "strategy": {"name": "topk", "k": 2},
            "merge": {"method": "linear", "parameters": {"weight": 0.5}},
            "stop": {"generations": 1},
            "seed": 1,
        }
    )
    with Search(config, tmp_path / "run") as search:
        search.run()
        children = [record for record in search.records if record.generation == 1]
        assert children
        assert all(record.error is None and record.fitness is not None for record in search.records)
        child = dict(search.candidate(children[0]).tensors())
    whole = open_checkpoint(founders["whole"])
    assert torch.allclose(child["lm_head.weight"], whole.base.tensor("lm_head.weight"), atol=1e-6)
    assert not torch.allclose(child["lm_head.weight"], child["model.embed_tokens.weight"], atol=1e-3)
    with Ledger(tmp_path / "run" / LEDGER_NAME) as ledger:
        assert ledger.table().names == tuple(whole.tensors)


def test_live_model_of_a_tied_folder_has_the_head_that_the_weights_have(base: Path, founders: dict[str, str]) -> None:
    words = torch.arange(1, 12).reshape(1, -1)
    adapter = Path(founders["whole"].partition("+")[2])
    with torch.no_grad():
        wanted = live(base, adapter)(input_ids=words).logits
    with open_checkpoint(founders["whole"]) as checkpoint, open_checkpoint(base) as tied:
        template, _ = with_own_heads([tied, checkpoint])
        assert frame(checkpoint) != frame(tied)
        for each in (template, checkpoint):
            model = LiveModel(each)
            tensors = [(name, checkpoint.tensor(name)) for name in checkpoint.tensors]
            model.hold(Candidate("whole", checkpoint.digest, lambda tensors=tensors: iter(tensors)))
            with torch.no_grad():
                assert (model.model(input_ids=words).logits - wanted).abs().max() <= 1e-5
    assert json.loads((base / "config.json").read_text())["tie_word_embeddings"] is True
    assert "lm_head.weight" not in load_file(base / "model.safetensors")
