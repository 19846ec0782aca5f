"""What a plan says from headers alone is what the merge then does; what is wrong is refused before weights are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import InvalidConfig, KinshipWarning, MismatchedModels, OutputNotWritable
from merging.merge import plan_summary, planned, write_merge
from merging.output import writer
from merging.recipe.schema import Recipe, parse_recipe

MakeModel = Callable[..., Path]

LAYERS, NORM = 4, "model.norm.weight"
SHAPES = {"model.embed_tokens.weight": (12, 6), NORM: (6,), "lm_head.weight": (12, 6)} | {
    f"model.layers.{layer}.{name}": shape
    for layer in range(LAYERS)
    for name, shape in {"self_attn.q_proj.weight": (6, 6), "mlp.up_proj.weight": (8, 6)}.items()
}


@pytest.fixture
def models(make_model: MakeModel) -> list[Path]:
    """A base and two fine-tunes with four layers."""
    base = make_model("base", shapes=SHAPES)
    paths = [base, *(make_model(f"m{seed}", seed=seed, base=base, shapes=SHAPES) for seed in (1, 2))]
    config = {"model_type": "llama", "num_hidden_layers": LAYERS, "layer_types": ["a", "b", "c", "d"], "eos": [1] * 4}
    for path in paths:
        (path / "config.json").write_text(json.dumps(config))
    return paths


def linear(*paths: Path, **changes: Any) -> Recipe:
    models = [{"model": str(path), "parameters": {"weight": 1}} for path in paths]
    return parse_recipe({"merge_method": "linear", "models": models} | changes)


def sliced(*slices: dict[Path, tuple[int, int]], method: str = "linear", **changes: Any) -> Recipe:
    content = [
        {"sources": [{"model": str(path), "layer_range": list(layers)} for path, layers in part.items()]}
        for part in slices
    ]
    return parse_recipe({"merge_method": method, "slices": content, "parameters": {"weight": [1.0, 3.0]}} | changes)


def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(Checkpoint, "read_into", read)


# Slices


def test_slices_are_renumbered_and_gradients_begin_anew(models: list[Path], tmp_path: Path) -> None:
    _, one, two = models
    recipe = sliced({one: (1, 4), two: (0, 3)}, {one: (3, 4), two: (1, 2)})
    folder = write_merge(recipe, tmp_path / "out")
    got, first, second = (load_file(path / "model.safetensors") for path in (folder, one, two))
    # Both weights follow one gradient, so the result is the mean of both: only which layers meet matters.
    pairs = {0: (1, 0), 1: (2, 1), 2: (3, 2), 3: (3, 1)}
    for layer, (left, right) in pairs.items():
        name = "mlp.up_proj.weight"
        want = (first[f"model.layers.{left}.{name}"] + second[f"model.layers.{right}.{name}"]) / 2
        torch.testing.assert_close(got[f"model.layers.{layer}.{name}"], want)
    config = json.loads((folder / "config.json").read_text())
    assert config["num_hidden_layers"] == 4
    assert config["layer_types"] == ["b", "c", "d", "d"]
    assert config["eos"] == [1] * 4


def test_embeddings_come_from_the_first_slice_and_the_head_from_the_last(models: list[Path], tmp_path: Path) -> None:
    base, one, two = models
    recipe = sliced({one: (0, 2)}, {base: (1, 2)}, {two: (2, 4)}, method="passthrough", parameters={})
    folder = write_merge(recipe, tmp_path / "out")
    got = load_file(folder / "model.safetensors")
    origin = {name: load_file(path / "model.safetensors") for name, path in zip("b12", models, strict=True)}
    assert torch.equal(got["model.embed_tokens.weight"], origin["1"]["model.embed_tokens.weight"])
    assert torch.equal(got["lm_head.weight"], origin["2"]["lm_head.weight"])
    assert torch.equal(got[NORM], origin["2"][NORM])
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 5


@pytest.mark.parametrize(("layers", "position"), [((0, 1), 1.0), ((0, 2), 0.0), ((1, 4), 0.0)])
def test_the_only_layer_of_a_slice_is_at_the_end_of_gradients(
    models: list[Path], tmp_path: Path, layers: tuple[int, int], position: float
) -> None:
    _, one, two = models
    recipe = sliced({one: layers, two: layers}, method="slerp", base_model=str(one), parameters={"t": [0.0, 1.0]})
    got = load_file(write_merge(recipe, tmp_path / "out") / "model.safetensors")
    end = load_file((two if position else one) / "model.safetensors")
    name = "self_attn.q_proj.weight"
    torch.testing.assert_close(got[f"model.layers.0.{name}"], end[f"model.layers.{layers[0]}.{name}"])


def test_one_module_is_the_whole_model(models: list[Path], tmp_path: Path) -> None:
    listed = [{"model": str(path), "parameters": {"weight": 1}} for path in models[1:]]
    module = parse_recipe({"merge_method": "linear", "modules": {"default": {"models": listed}}})
    got, want = (
        write_merge(recipe, tmp_path / name) for name, recipe in {"m": module, "p": linear(*models[1:])}.items()
    )
    assert (got / "model.safetensors").read_bytes() == (want / "model.safetensors").read_bytes()


# Heads


def test_a_head_tied_everywhere_is_written_once(models: list[Path], tmp_path: Path) -> None:
    for path, stored in zip(models, (True, False, True), strict=True):
        (path / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": True}))
        tensors = load_file(path / "model.safetensors")
        head = tensors.pop("lm_head.weight")
        assert head is not None
        if stored:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, path / "model.safetensors")
    got = load_file(write_merge(linear(*models), tmp_path / "out") / "model.safetensors")
    assert got.keys() == SHAPES.keys() - {"lm_head.weight"}


def test_a_head_tied_in_one_model_alone_is_refused(models: list[Path], tmp_path: Path) -> None:
    tensors = load_file(models[1] / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, models[1] / "model.safetensors")
    with pytest.raises(MismatchedModels, match=r"lm_head\.weight") as refusal:
        write_merge(linear(*models), tmp_path / "out")
    assert "tied to model.embed_tokens.weight" in refusal.value.hint


# What the base is


def test_a_listed_base_of_task_vectors_needs_no_parameters(models: list[Path], tmp_path: Path) -> None:
    """mergekit's own examples list it so."""
    base, one, _ = models
    content = {
        "merge_method": "task_arithmetic",
        "base_model": str(base),
        "models": [{"model": str(base)}, {"model": str(one), "parameters": {"weight": 0.5}}],
        "parameters": {"normalize": True},
    }
    got = load_file(write_merge(parse_recipe(content), tmp_path / "out") / "model.safetensors")
    want = load_file(one / "model.safetensors")
    for name, tensor in want.items():
        torch.testing.assert_close(got[name], tensor)


# Refusals


def changed(path: Path, **tensors: torch.Tensor | None) -> None:
    weights = load_file(path / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor is None:
            del weights[name]
        else:
            weights[name] = tensor
    save_file(weights, path / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({NORM: None}, NORM, "architecture"),
        ({NORM: torch.zeros(7)}, NORM, "architecture"),
        ({"lm_head.weight": torch.zeros(13, 6)}, "[13, 6]", "tokenizer_source"),
        ({"extra": torch.zeros(1)}, "'extra'", "architecture"),
        ({NORM: torch.zeros(6, dtype=torch.int32)}, "int32", "dtype"),
    ],
)
def test_models_that_do_not_fit_are_refused_from_headers(
    models: list[Path], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str, hint: str
) -> None:
    changed(models[2], **change)
    unread(monkeypatch)
    with pytest.raises(MismatchedModels) as refusal, planned(linear(*models)):
        pass
    assert message in refusal.value.message
    assert hint in refusal.value.hint


def test_a_filter_that_no_tensor_has_is_told(models: list[Path]) -> None:
    weight = [{"filter": "self_atn", "value": 0.5}, {"filter": "mlp", "value": 0.3}, {"filter": "*", "value": 1}]
    recipe = linear(*models[1:], models=[{"model": str(path), "parameters": {"weight": weight}} for path in models])
    with pytest.warns(KinshipWarning) as told, planned(recipe):
        pass
    assert {str(each.message) for each in told} == {"The filter 'self_atn' of 'weight' matches no tensor."}


def test_another_architecture_is_refused(models: list[Path]) -> None:
    (models[1] / "config.json").write_text('{"model_type": "mistral"}')
    with pytest.raises(MismatchedModels, match="mistral"), planned(linear(*models)):
        pass


@pytest.mark.parametrize(
    "recipe",
    [
        {
            "merge_method": "linear",
            "models": [{"model": "m1", "parameters": {"weight": [{"filter": "mlp", "value": 1}]}}],
        },
        {
            "merge_method": "linear",
            "models": [{"model": name, "parameters": {"weight": w}} for name, w in (("m1", 1), ("m2", -1))],
        },
        {"merge_method": "passthrough", "slices": [{"sources": [{"model": "m1", "layer_range": [2, 5]}]}]},
    ],
    ids=["no value", "zero sum", "layers"],
)
def test_parameters_are_refused_before_reading(
    models: list[Path], monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any]
) -> None:
    monkeypatch.chdir(models[0].parent)
    unread(monkeypatch)
    with pytest.raises(InvalidConfig), planned(parse_recipe(recipe)):
        pass


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slices": [{"sources": [{"model": "a", "layer_range": [0, 2]}]}]}, "together"),
        ({"base_model": "elsewhere"}, "no part"),
        ({"tokenizer": {"source": "base"}, "tokenizer_source": "base"}, "both"),
        ({"parameters": {"normalize": 1.0}}, "true or false"),
        ({"parameters": {"weight": True}}, "a number"),
        ({"parameters": {"weight": "on"}}, "'on'"),
        ({"parameters": {"normalize": "true"}}, "'true'"),
        ({"parameters": {"weight": float("nan")}}, "nan"),
    ],
)
def test_recipe_that_makes_no_sense(changes: dict[str, Any], said: str) -> None:
    content = {"merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}]} | changes
    with pytest.raises(InvalidConfig) as refusal:
        parse_recipe(content)
    assert said in refusal.value.message


# The dry run


@pytest.mark.parametrize("shard_bytes", [10**9, 300])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dry_run_tells_what_will_be(models: list[Path], tmp_path: Path, dtype: str, shard_bytes: int) -> None:
    recipe = linear(*models, out_dtype=dtype)
    with planned(recipe) as plan:
        told = plan_summary(plan, tmp_path / "out", shard_bytes)
    folder = write_merge(recipe, tmp_path / "out", shard_bytes=shard_bytes)
    files = [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]
    assert told["bytes_out"] == sum(file.stat().st_size for file in files)
    assert (len(files) > 2) is (shard_bytes == 300)
    assert told["tensors"] == len(SHAPES)
    assert told["by_method"] == {"linear": len(SHAPES)}
    assert told["dtypes"] == [dtype]
    sizes = [sum(tensor.nbytes for tensor in load_file(path / "model.safetensors").values()) for path in models]
    assert told["bytes_in"] == sum(sizes)


def test_a_disk_too_small_is_refused_before_reading(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "free_space", lambda output: 1000)
    unread(monkeypatch)
    with pytest.raises(OutputNotWritable, match="1000 bytes free"):
        write_merge(linear(*models), tmp_path / "out")


def test_progress_ends_at_all(models: list[Path], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_merge(linear(*models), tmp_path / "out", progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] == sum(4 * torch.Size(shape).numel() for shape in SHAPES.values())
    assert [done for done, _ in told] == sorted(done for done, _ in told)


# What is remembered


def test_a_lineage_replays_without_the_cosine(models: list[Path], tmp_path: Path) -> None:
    """Its coefficients make the same bytes as a plain weighted sum, so no rounding can choose another branch."""
    _, one, two = models
    content = {
        "merge_method": "slerp",
        "base_model": str(one),
        "models": [{"model": str(one)}, {"model": str(two)}],
        "parameters": {"t": [0.2, 0.9]},
    }
    folder = write_merge(parse_recipe(content), tmp_path / "out")
    lineage = json.loads((folder / "lineage.json").read_text())
    listed = [
        {
            "model": parent["model"],
            "parameters": {
                "weight": [
                    {"filter": name, "value": row[index]}
                    for name, row in sorted(lineage["coefficients"].items(), key=lambda item: -len(item[0]))
                ]
            },
        }
        for index, parent in enumerate(lineage["parents"])
    ]
    replay = parse_recipe({"merge_method": "linear", "models": listed, "parameters": {"normalize": False}})
    again = write_merge(replay, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_the_card_tells_the_parents_licences(models: list[Path], tmp_path: Path) -> None:
    _, one, two = models
    (one / "README.md").write_text("---\nlicense: apache-2.0\n---\n# One\n")
    (two / "README.md").write_text("---\nlicense: llama3\n---\n# Two\n")
    card = (write_merge(linear(one, two), tmp_path / "out") / "README.md").read_text()
    assert "license: other" in card
    assert f"`{one}`: apache-2.0" in card
    assert f"`{two}`: llama3" in card
    (two / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert "license: apache-2.0" in (write_merge(linear(one, two), tmp_path / "same") / "README.md").read_text()
