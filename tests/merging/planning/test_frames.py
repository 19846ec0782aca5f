"""The frame of a merge: whose tokenizer, template, end tokens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kinship.errors import InvalidConfig
from merging.merge import write_merge
from merging.recipe.schema import parse_recipe

MakeModel = Callable[..., Path]
TEMPLATE = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"


@pytest.fixture
def dress(make_model: MakeModel) -> Callable[..., Path]:
    """A model with a tokenizer, end tokens, and a template if it has one."""

    def make(name: str, *, end: Any = 2, template: str | None = None, extra: tuple[str, ...] = (), **more: Any) -> Path:
        path = make_model(name, seed=len(name), **more)
        tokens = ["<pad>", "<bos>", "<eos>", "<|end|>", *"abcdefg"]
        vocabulary = {token: id for id, token in enumerate([*tokens, *extra])}
        tokenizer = {"model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<pad>"}, "added_tokens": []}
        (path / "tokenizer.json").write_text(json.dumps(tokenizer))
        settings = {"eos_token": "<|end|>" if template else "<eos>"} | ({"chat_template": template} if template else {})
        (path / "tokenizer_config.json").write_text(json.dumps(settings))
        (path / "generation_config.json").write_text(json.dumps({"eos_token_id": end}))
        ids = {"eos_token_id": end, "pad_token_id": 0} if template else {"eos_token_id": 2}
        (path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 11, **ids}))
        return path

    return make


def task_vectors(base: Path, *models: Path, **more: Any) -> dict[str, Any]:
    listed = [{"model": str(model), "parameters": {"weight": 0.5}} for model in models]
    return {"merge_method": "task_arithmetic", "base_model": str(base), "models": listed} | more


def facts(folder: Path) -> tuple[Any, Any, Any, Any]:
    read = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("generation_config", "config")}
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    template = folder / "chat_template.jinja"
    said = template.read_text() if template.exists() else settings.get("chat_template")
    return read["generation_config"]["eos_token_id"], read["config"].get("eos_token_id"), settings["eos_token"], said


def test_instruct_models_on_a_base_merge_into_an_instruct_model(dress: Callable[..., Path], tmp_path: Path) -> None:
    base = dress("base")
    one, other = (dress(name, end=[2, 3], template=TEMPLATE) for name in ("one", "other"))
    folder = write_merge(parse_recipe(task_vectors(base, one, other)), tmp_path / "out")
    assert facts(folder) == ([2, 3], [2, 3], "<|end|>", TEMPLATE)
    assert json.loads((folder / "config.json").read_text())["pad_token_id"] == 0
    assert facts(base) == (2, 2, "<eos>", None)


def test_frames_that_differ_are_refused_with_each_difference(dress: Callable[..., Path], tmp_path: Path) -> None:
    base, one, other = dress("base"), dress("one", end=[2, 3], template=TEMPLATE), dress("other")
    with pytest.raises(InvalidConfig) as error:
        write_merge(parse_recipe(task_vectors(base, one, other)), tmp_path / "out")
    message = error.value.message
    for said in ("chat template", "generation config: eos_token_id: [2, 3] in", "config: eos_token_id", "eos_token"):
        assert said in message
    for option in ("tokenizer_source: union", "chat_template: auto", f"generation_config: {one}"):
        assert option in str(error.value.hint)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lender", ["one", "other"])
def test_a_recipe_settles_each_difference(lender: str, dress: Callable[..., Path], tmp_path: Path) -> None:
    models = {"one": dress("one", end=[2, 3], template=TEMPLATE), "other": dress("other")}
    recipe = task_vectors(dress("base"), *models.values())
    settled = {"generation_config": str(models[lender]), "tokenizer_source": str(models[lender])}
    with pytest.raises(InvalidConfig, match="chat template"):
        write_merge(parse_recipe(recipe | settled), tmp_path / "out")
    folder = write_merge(parse_recipe(recipe | settled | {"chat_template": "auto"}), tmp_path / "out")
    expected = {"one": ([2, 3], [2, 3], "<|end|>"), "other": (2, 2, "<eos>")}
    assert facts(folder)[:3] == expected[lender]
    assert facts(folder)[3] == TEMPLATE  # the one that most models with a template have


def test_whose_generation_config_must_be_a_model_merged(dress: Callable[..., Path], tmp_path: Path) -> None:
    one, other = dress("one"), dress("other")
    recipe = task_vectors(dress("base"), one, other, generation_config=str(tmp_path / "absent"))
    with pytest.raises(InvalidConfig, match=r"generation_config: .*absent"):
        write_merge(parse_recipe(recipe), tmp_path / "out")


def test_code_licences_and_policies_travel(dress: Callable[..., Path], tmp_path: Path) -> None:
    one, other = dress("one"), dress("other")
    for name in ("modeling_own.py", "qwen.tiktoken", "LICENSE.txt", "LICENSE", "NOTICE", "USE_POLICY.md"):
        (one / name).write_text(f"of {name}")
    listed = [{"model": str(path), "parameters": {"weight": 0.5}} for path in (one, other)]
    folder = write_merge(parse_recipe({"merge_method": "linear", "models": listed}), tmp_path / "out")
    for name in ("modeling_own.py", "qwen.tiktoken", "LICENSE.txt", "LICENSE", "NOTICE", "USE_POLICY.md"):
        assert (folder / name).read_text() == f"of {name}"
