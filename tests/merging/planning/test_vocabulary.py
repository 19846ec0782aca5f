"""Merges of models whose tokens differ, row by row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, UnsupportedCheckpoint
from merging.merge import write_merge
from merging.planning.chat import chat_template_files
from merging.planning.vocabulary import align_vocabularies
from merging.recipe.schema import TokenizerSettings, parse_recipe

MakeModel = Callable[..., Path]
EMBEDDING, HEAD, OTHER = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"

PLAIN = {
    "base": ["a", "b", "c", "<s>"],
    "one": ["<s>", "a", "b", "x", "c", "y"],  # another order, and tokens of its own
    "two": ["a", "c", "<s>", "x"],  # lacks b
}
ADDED = {"base": ["<s>"], "one": ["<s>", "y"], "two": ["<s>"]}
PADDING = 2


@pytest.fixture
def models(make_model: MakeModel) -> dict[str, Path]:
    """Three models with vocabularies of their own, and two rows of padding each."""
    paths = {}
    for seed, (name, tokens) in enumerate(PLAIN.items()):
        height = len(tokens) + PADDING
        shapes = {EMBEDDING: (height, 3), HEAD: (height, 3), OTHER: (3,), "model.layers.0.mlp.w": (3, 3)}
        path = make_model(name, seed=seed, shapes=shapes)
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
        added = [{"id": tokens.index(token), "content": token} | flags for token in ADDED[name]]
        vocabulary = {token: id for id, token in enumerate(tokens) if token not in ADDED[name]}
        content = {"model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"}, "added_tokens": added}
        (path / "tokenizer.json").write_text(json.dumps(content))
        (path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": height}))
        paths[name] = path
    return paths


def merge(models: dict[str, Path], out: Path, **changes: Any) -> Path:
    content = {
        "merge_method": "task_arithmetic",
        "base_model": str(models["base"]),
        "models": [{"model": str(models[name]), "parameters": {"weight": 0.5}} for name in ("one", "two")],
    }
    return write_merge(parse_recipe(content | changes), out)


def rows(models: dict[str, Path], name: str) -> dict[str, dict[str, torch.Tensor]]:
    return {
        model: dict(zip(tokens, load_file(models[model] / "model.safetensors")[name].double(), strict=False))
        for model, tokens in PLAIN.items()
    }


@pytest.mark.parametrize("source", ["base", "union"])
@pytest.mark.parametrize("tensor", [EMBEDDING, HEAD])
def test_rows_follow_their_tokens(models: dict[str, Path], tmp_path: Path, source: str, tensor: str) -> None:
    folder = merge(models, tmp_path / "out", tokenizer_source=source)
    got = load_file(folder / "model.safetensors")[tensor].double()
    known = rows(models, tensor)
    tokens = ["a", "b", "c", "<s>", *(["x", "y"] if source == "union" else [])]
    assert got.shape == (len(PLAIN["base"]) + PADDING, 3)  # as many as the base has, whose padding is kept
    assert not got[len(tokens) :].any()
    for id, token in enumerate(tokens):
        owners = [model for model in known if token in known[model]]
        default = known["base"].get(token, sum(known[model][token] for model in owners) / len(owners))
        base, one, two = (known[model].get(token, default) for model in ("base", "one", "two"))
        torch.testing.assert_close(got[id], base + 0.5 * (one - base) + 0.5 * (two - base), rtol=1e-6, atol=1e-6)
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == len(got)


def test_the_tokenizer_of_the_union_knows_every_token(models: dict[str, Path], tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    folder = merge(models, tmp_path / "out", tokenizer={"source": "union", "pad_to_multiple_of": 4})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.get_vocab() == {"a": 0, "b": 1, "c": 2, "<s>": 3, "x": 4, "y": 5}
    assert tokenizer.encode("y<s>").ids == [5, 3]
    weights = load_file(folder / "model.safetensors")[EMBEDDING]
    assert weights.shape == (8, 3)
    assert not weights[6:].any()


def test_the_tokenizer_of_one_of_the_models(models: dict[str, Path], tmp_path: Path) -> None:
    (models["base"] / "special_tokens_map.json").write_text("{}")
    (models["one"] / "tokenizer_config.json").write_text('{"of": "one"}')
    folder = merge(models, tmp_path / "out", tokenizer_source=str(models["one"]))
    assert (folder / "tokenizer.json").read_bytes() == (models["one"] / "tokenizer.json").read_bytes()
    assert json.loads((folder / "tokenizer_config.json").read_text()) == {"of": "one"}
    assert not (folder / "special_tokens_map.json").exists()
    assert load_file(folder / "model.safetensors")[HEAD].shape == (6 + PADDING, 3)


def test_every_range_of_rows_reads_the_same(models: dict[str, Path]) -> None:
    opened = {name: open_checkpoint(path) for name, path in models.items()}
    for model in align_vocabularies(TokenizerSettings(source="union"), opened, "base").models.values():
        whole = model.floats(EMBEDDING)
        for start in range(len(whole)):
            for count in range(1, len(whole) - start + 1):
                assert model.floats(EMBEDDING, start, count).tolist() == whole[start : start + count].tolist()
    for model in opened.values():
        model.close()


def test_what_cannot_be_aligned_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="'elsewhere'"):
        merge(models, tmp_path / "out", tokenizer_source="elsewhere")
    (models["two"] / "tokenizer.json").unlink()
    with pytest.raises(UnsupportedCheckpoint, match=r"tokenizer\.json"):
        merge(models, tmp_path / "out", tokenizer_source="union")


# Single tokens

SOURCES: dict[str, tuple[str | dict[str, Any], Callable[..., Any]]] = {
    "a model": ("two", lambda known: known["two"]["x"]),
    "another token": ({"kind": "model_token", "model": "one", "token": "y"}, lambda known: known["one"]["y"]),
    "a row": ({"kind": "model_token", "model": "base", "token_id": 1}, lambda known: known["base"]["b"]),
    "zeros": ({"kind": "zero"}, lambda known: torch.zeros(3, dtype=torch.float64)),
}


def of(models: dict[str, Path], source: str | dict[str, Any]) -> str | dict[str, Any]:
    """``source`` with the paths of the models."""
    if isinstance(source, str):
        return str(models[source])
    return source | ({"model": str(models[source["model"]])} if "model" in source else {})


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("tensor", [EMBEDDING, HEAD])
def test_the_embedding_of_a_token(models: dict[str, Path], tmp_path: Path, kind: str, force: bool, tensor: str) -> None:
    source, expected = SOURCES[kind]
    tokens = {"x": {"source": of(models, source), "force": force}}
    folder = merge(models, tmp_path / "out", tokenizer={"source": "union", "tokens": tokens})
    got = load_file(folder / "model.safetensors")[tensor].double()
    known = rows(models, tensor)
    row = expected(known)  # what base lacks, and with force what all three have
    one, two = (row, row) if force else (known["one"]["x"], known["two"]["x"])
    torch.testing.assert_close(got[4], row + 0.5 * (one - row) + 0.5 * (two - row), rtol=1e-6, atol=1e-6)
    plain = load_file(merge(models, tmp_path / "plain", tokenizer_source="union") / "model.safetensors")[tensor]
    others = [0, 1, 2, 3, 5]
    assert torch.equal(got[others].float(), plain[others])


def test_force_alone_gives_every_model_what_those_without_the_token_get(
    models: dict[str, Path], tmp_path: Path
) -> None:
    folder = merge(models, tmp_path / "out", tokenizer={"source": "union", "tokens": {"b": {"force": True}}})
    assert torch.equal(
        load_file(folder / "model.safetensors")[EMBEDDING][1],
        load_file(models["base"] / "model.safetensors")[EMBEDDING][1],
    )


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({"z": {"source": "one"}}, "the merge's tokenizer has no token 'z'"),
        ({"y": {"source": "two"}}, "has no token 'y'"),
        ({"y": {"source": {"kind": "model_token", "model": "one", "token_id": 99}}}, "has no row 99"),
        ({"y": {"source": {"kind": "model_token", "model": "one"}}}, "one of token and token_id"),
        ({"y": {"source": {"kind": "zero", "token": "a"}}}, "zero takes neither"),
        ({"y": {"sauce": "one"}}, "sauce"),
    ],
)
def test_tokens_that_are_not_there(
    models: dict[str, Path], tmp_path: Path, tokens: dict[str, Any], message: str
) -> None:
    placed = {
        token: wanted | ({"source": of(models, wanted["source"])} if "source" in wanted else {})
        for token, wanted in tokens.items()
    }
    with pytest.raises(InvalidConfig, match=message):
        merge(models, tmp_path / "out", tokenizer={"source": "union", "tokens": placed})
    assert not (tmp_path / "out").exists()


def test_a_token_from_a_model_outside_the_merge(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="'elsewhere', which is none of the models"):
        merge(models, tmp_path / "out", tokenizer={"tokens": {"x": {"source": "elsewhere"}}})


# Chat templates


@pytest.mark.parametrize(
    ("wanted", "written"),
    [("auto", "common"), ("{{ messages }}", "{{ messages }}"), ("chatml", "<|im_start|>")],
)
def test_chat_template(models: dict[str, Path], tmp_path: Path, wanted: str, written: str) -> None:
    (models["base"] / "chat_template.jinja").write_text("rare")
    for name in ("one", "two"):
        (models[name] / "tokenizer_config.json").write_text('{"chat_template": "common"}')
    folder = merge(models, tmp_path / "out", tokenizer_source="base", chat_template=wanted)
    assert written in (folder / "chat_template.jinja").read_text()


def test_unknown_chat_template(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="'llama9'"):
        merge(models, tmp_path / "out", tokenizer_source="base", chat_template="llama9")


TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, {"role": "user", "content": "Bye"}]
WRITTEN = {
    "alpaca": "### Instruction:\nHi\n\n### Response:\nHo\n\n### Instruction:\nBye\n\n### Response:\n",
    "chatml": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"
    "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
    "exaone": "[|user|]Hi\n[|assistant|]Ho[|endofturn|]\n[|user|]Bye\n[|assistant|]",
    "llama3": "<B><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHo<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<B>[INST] Hi [/INST] Ho<E>[INST] Bye [/INST]",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_named_chat_templates_write_what_their_models_were_trained_on(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    (template,) = chat_template_files(name, []).values()
    (text,), _ = render_jinja_template(
        [TALK], chat_template=template, add_generation_prompt=True, bos_token="<B>", eos_token="<E>"
    )
    assert text == WRITTEN[name]


def test_padding_beyond_what_the_models_hold_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="would have 1048576 rows"):
        merge(models, tmp_path / "out", tokenizer={"source": "union", "pad_to_multiple_of": 2**20})
    assert not (tmp_path / "out").exists()
