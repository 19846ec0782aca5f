"""Founders are searched in the frame that they share or that the run file names, on one vocabulary."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig
from search.config import RunConfig, parse_config
from search.history.export import export_run
from search.ledger.ledger import Ledger
from search.running.coordinator import Search
from search.running.founders import open_founders

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", *"abcdefghijklmnopqrstuvwxyz =\n0123456"]
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def tokenizer(extra: tuple[str, ...] = (), template: str | None = None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({word: id for id, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    if extra:
        fast.add_special_tokens({"additional_special_tokens": list(extra)})
    if template:
        fast.chat_template = template
    return fast


def model(
    folder: Path, seed: int, extra: tuple[str, ...] = (), *, padding: int = 0, end: Any = 2, template: str | None = None
) -> Path:
    """A fine-tune of one start, with rows for ``extra`` tokens of its own and for ``padding``."""
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS), max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0, **shape
    )
    torch.manual_seed(0)
    made = transformers.LlamaForCausalLM(config).float()
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    made.resize_token_embeddings(len(WORDS) + len(extra) + padding, mean_resizing=False)
    made.generation_config = transformers.GenerationConfig(bos_token_id=1, pad_token_id=0, eos_token_id=end)
    made.save_pretrained(folder)
    tokenizer(extra, template).save_pretrained(folder)
    return folder


def run_file(folder: Path, *founders: str, **more: Any) -> RunConfig:
    (folder / "text.txt").write_text("abc = cab\nhad = bad\nfed = fab\nace = bag\n" * 3)
    return parse_config(
        {
            "base": str(folder / "base"),
            "founders": {name: str(folder / name) for name in founders},
            "evaluate": {"perplexity": [{"file": str(folder / "text.txt"), "documents": "lines"}]},
            "strategy": {"name": "topk", "k": 2},
            "stop": {"generations": 1},
            **more,
        }
    )


def heights(models: list[Any]) -> list[set[int]]:
    return [
        {model.tensors[name].shape[0] for name in ("model.embed_tokens.weight", "lm_head.weight")} for model in models
    ]


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """As in the paper: a base and founders of which one has a token more, another two."""
    assert len(WORDS) == 40
    model(tmp_path / "base", 1)
    model(tmp_path / "a", 2)
    model(tmp_path / "b", 3, ("<one>",))
    model(tmp_path / "c", 4, ("<one>", "<two>"))
    return tmp_path


def test_founders_of_other_vocabularies_are_refused_with_what_to_write(paper: Path) -> None:
    with pytest.raises(InvalidConfig) as error:
        open_founders(run_file(paper, "a", "b", "c"), None)
    assert "added tokens" in error.value.message
    assert "`frame: base` or `frame: a` or `frame: b` or `frame: c`" in str(error.value.hint)
    assert "tokenizer_source: union" in str(error.value.hint)
    with pytest.raises(InvalidConfig, match="tokenizer_source: 'd' is none"):
        open_founders(run_file(paper, "a", "b", frame="a", tokenizer_source="d"), None)


@pytest.mark.parametrize(
    ("settings", "rows"),
    [({"frame": "base"}, 40), ({"frame": "c"}, 42), ({"frame": "a", "tokenizer_source": "union"}, 42)],
    ids=["of the base", "of the founder with most", "the union"],
)
def test_the_papers_founders_are_searched_together(paper: Path, settings: dict[str, str], rows: int) -> None:
    config = run_file(paper, "a", "b", "c", **settings)
    found = open_founders(config, None)
    assert heights([*found.models, found.template]) == [{rows}] * 5
    own = {name: open_checkpoint(paper / name) for name in "abc"}
    for one in found.models[1:]:
        shared = own[one.id].floats("model.embed_tokens.weight")[: rows * 16]
        assert one.floats("model.embed_tokens.weight")[: len(shared)].tolist() == shared.tolist()
    if rows == 42:  # a token that some lack has the rows of those that have it
        with_it = [own[name].floats("lm_head.weight", 40 * 16, 16) for name in "bc"]
        filled = found.models[1].floats("lm_head.weight", 40 * 16, 16)
        torch.testing.assert_close(torch.from_numpy(filled), torch.from_numpy(sum(with_it) / 2))
    with Search(config, paper / "run") as search:
        search.run()
        assert all(record.error is None and record.fitness is not None for record in search.records)
        assert any(record.generation == 1 for record in search.records)
    with Ledger.of_run(paper / "run") as ledger:
        assert export_run(ledger)["config"]["frame"] == settings["frame"]


def test_padding_is_kept(tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "a", "b")):
        model(tmp_path / name, seed, padding=24)
    found = open_founders(run_file(tmp_path, "a", "b"), None)
    assert heights(found.models) == [{64}] * 3
    model(tmp_path / "more", 5, ("<one>",), padding=23)
    union = open_founders(run_file(tmp_path, "a", "more", frame="a", tokenizer_source="union"), None)
    assert heights(union.models) == [{64}] * 3
    assert union.template.config["vocab_size"] == 64


def test_instruct_founders_of_a_base_are_searched_in_their_frame(tmp_path: Path) -> None:
    model(tmp_path / "base", 1)
    for seed, name in ((2, "a"), (3, "b")):
        model(tmp_path / name, seed, end=[2, 3], template=TEMPLATE)
    found = open_founders(run_file(tmp_path, "a", "b"), None)
    assert found.template.path == tmp_path / "a"
    assert json.loads((found.template.path / "generation_config.json").read_text())["eos_token_id"] == [2, 3]
    assert open_founders(run_file(tmp_path, "a", "b", frame="base"), None).template.path == tmp_path / "base"


def test_the_frame_of_one_and_the_tokens_of_another(paper: Path) -> None:
    model(paper / "chat", 6, end=[2, 3], template=TEMPLATE)
    found = open_founders(run_file(paper, "chat", "c", frame="chat", tokenizer_source="c"), None)
    folder = found.template.path
    assert heights(found.models) == [{42}] * 3
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 42
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 3]
    read = transformers.AutoTokenizer.from_pretrained(folder)
    assert read.convert_tokens_to_ids("<two>") == 41
    assert read.chat_template == TEMPLATE
