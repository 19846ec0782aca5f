"""Methods that look at data, named in a recipe with a ``data:`` block."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, ReferenceNotFound
from merging.data_driven import run
from merging.data_driven.batches import TextBatches
from merging.data_driven.grams import input_grams
from merging.data_driven.models import load_causal_lm
from merging.data_driven.regmean import regmean
from merging.data_driven.run import fisher_merge, fisher_statistics, gram_statistics, regmean_merge
from merging.merge import planned, write_merge
from merging.recipe.schema import load_recipe, parse_recipe

MakeLlama = Callable[..., Path]
Tensors = dict[str, torch.Tensor]

TEXTS = {"one": ["ab cd ef", "gh ab"], "two": ["kl mn op kl", "ef gh", "op"]}


@pytest.fixture
def models(make_llama: MakeLlama) -> list[Path]:
    """Two models of one tokenizer, and a base."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({letter: id for id, letter in enumerate("? abcdefghijklmnop")}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    folders = [make_llama(name, seed) for seed, name in enumerate(("one", "two", "base"), 1)]
    for folder in folders:
        transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?").save_pretrained(folder)
    return folders


def recipe(method: str, models: list[Path], parameters: dict[str, Any] | None = None, **others: Any) -> Any:
    entries = [{"model": str(model), "data": {"texts": TEXTS[model.name]}} for model in models[:2]]
    content = {"merge_method": method, "models": entries, "parameters": parameters or {}, **others}
    return parse_recipe({"data": {"batch": 2}, **content})


def merged(folder: Path, *arguments: Any, **others: Any) -> Tensors:
    return load_file(write_merge(recipe(*arguments, **others), folder / "out") / "model.safetensors")


def streams(folder: Path) -> list[TextBatches]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [TextBatches(None, tokenizer, 2, texts=texts) for texts in TEXTS.values()]


def require_equal(found: Tensors, wanted: Tensors) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_fisher_and_regmean_are_those_called_from_python(models: list[Path], tmp_path: Path) -> None:
    with open_checkpoint(models[0]) as one, open_checkpoint(models[1]) as two:
        pairs = list(zip((one, two), streams(models[0]), strict=True))
        fishers = [fisher_statistics(model, own, tmp_path / f"{model.path.name}.f") for model, own in pairs]
        grams = [gram_statistics(model, own, tmp_path / f"{model.path.name}.g") for model, own in pairs]
        for normalize in (True, False):
            wanted = dict(fisher_merge([one, two], fishers, weights=[1.0, 2.0], normalize=normalize))
            content = recipe("fisher", models, {"normalize": normalize}).to_dict()
            content["models"][1]["parameters"] = {"weight": 2.0}
            folder = write_merge(parse_recipe(content), tmp_path / f"fisher-{normalize}")
            require_equal(load_file(folder / "model.safetensors"), wanted)
        wanted = dict(regmean_merge([one, two], grams, alpha=0.8))
        require_equal(merged(tmp_path, "regmean", models, {"alpha": 0.8}), wanted)


def test_what_was_measured_is_kept_where_that_is_asked_for(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"statistics": str(tmp_path / "kept"), "batch": 2}
    first = merged(tmp_path / "a", "regmean", models, data=data)
    monkeypatch.setattr(run, "load_causal_lm", lambda *_: pytest.fail("measured again"))
    require_equal(merged(tmp_path / "b", "regmean", models, data=data), first)
    merged(tmp_path / "c", "mats", models, data=data)  # which wants the same
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_no_step_of_mats_is_the_average(models: list[Path], tmp_path: Path) -> None:
    one, two = (load_file(model / "model.safetensors") for model in models[:2])
    require_equal(
        merged(tmp_path, "mats", models, {"iterations": 0}), {name: (one[name] + two[name]) / 2 for name in one}
    )


def test_regmean_plus_plus_measures_layers_on_merged_ones(models: list[Path], tmp_path: Path) -> None:
    """Written out: a model whose first layers are the merge's and whose others are its own, layer after layer."""
    found = merged(tmp_path, "regmean_plus_plus", models)
    tensors = [load_file(model / "model.safetensors") for model in models[:2]]
    wanted = {name: (tensors[0][name] + tensors[1][name]) / 2 for name in tensors[0]}
    with open_checkpoint(models[0]) as one:
        live = load_causal_lm(one)
    known = {name for name in wanted if "layers" not in name}
    for layer in ("layers.0.", "layers.1."):
        grams = []
        for own, stream in zip(tensors, streams(models[0]), strict=True):
            live.load_state_dict({name: (wanted if name in known else own)[name] for name in own}, strict=False)
            grams.append(input_grams(live, stream))
        for name in wanted:
            if layer in name and name in grams[0]:
                pair = torch.stack([own[name] for own in tensors])
                wanted[name] = regmean(pair, torch.stack([own[name] for own in grams]), [1.0, 1.0])
        known |= {name for name in wanted if layer in name}
    require_equal(found, wanted)
    plain = merged(tmp_path / "plain", "regmean", models)
    assert not torch.allclose(plain["model.layers.1.mlp.up_proj.weight"], found["model.layers.1.mlp.up_proj.weight"])


def test_adamerging_is_task_arithmetic_by_what_it_finds(models: list[Path], tmp_path: Path) -> None:
    base = str(models[2])
    plain = merged(tmp_path / "plain", "adamerging", models, {"steps": 0}, base_model=base)
    start, one, two = (load_file(models[place] / "model.safetensors") for place in (2, 0, 1))
    wanted = {name: start[name] + 0.3 * (one[name] - start[name]) + 0.3 * (two[name] - start[name]) for name in start}
    require_equal(plain, wanted)
    trained = merged(tmp_path, "adamerging", models, {"steps": 3, "rate": 0.05}, base_model=base)
    assert any(not torch.allclose(trained[name], wanted[name]) for name in wanted)
    written = load_recipe(tmp_path / "out" / "mergekit_config.yml")
    assert (written.merge_method, written.data) == ("task_arithmetic", None)
    again = load_file(write_merge(written, tmp_path / "again") / "model.safetensors")
    require_equal(again, trained)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": [{"model": "one"}, {"model": "two"}]}, "neither a file nor texts"),
        ({"data": {"file": "here.txt", "texts": ["ab"]}}, "both a file and texts"),
        ({"merge_method": "linear", "parameters": {"weight": 1}, "data": {"texts": ["ab"]}}, "looks at no data"),
        ({"tokenizer_source": "union"}, "whole models on disk"),
        ({"data": {"text": ["ab"]}}, "unknown key 'data.text'"),
    ],
)
def test_data_that_make_no_sense_are_refused(change: dict[str, Any], said: str) -> None:
    content = {"merge_method": "regmean", "models": [{"model": "one"}, {"model": "two"}], "data": {"texts": ["ab"]}}
    if "models" in change:
        content.pop("data")
    with pytest.raises(InvalidConfig, match=said):
        parse_recipe(content | change)


def test_a_merge_that_sees_data_stands_in_no_other() -> None:
    inner = {"merge_method": "fisher", "models": [{"model": "one"}, {"model": "two"}]}
    outer = {"merge_method": "passthrough", "models": [{"model": inner}]}
    with pytest.raises(InvalidConfig, match="in no other recipe"):
        parse_recipe(outer)


def test_a_file_that_is_not_there_is_named_at_once() -> None:
    content = {"merge_method": "regmean", "models": [{"model": "one"}], "data": {"file": "nowhere.txt"}}
    with pytest.raises(ReferenceNotFound, match=r"nowhere\.txt"), planned(parse_recipe(content)):
        pass
