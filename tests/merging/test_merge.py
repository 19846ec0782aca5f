import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship.checkpoints.opening import INDEX_NAME, open_checkpoint
from kinship.errors import InvalidConfig, MismatchedModels, NonFiniteWeights, OutputExists, ReferenceNotFound
from merging import merge as run
from merging.merge import write_merge
from merging.recipe.schema import Recipe, parse_recipe

MakeModel = Callable[..., Path]
Tensors = dict[str, torch.Tensor]


def load(folder: Path) -> Tensors:
    return load_file(folder / "model.safetensors")


def linear(weights: dict[Path, float], **changes: Any) -> Recipe:
    models = [{"model": str(path), "parameters": {"weight": weight}} for path, weight in weights.items()]
    return parse_recipe({"merge_method": "linear", "models": models} | changes)


@pytest.fixture
def base(make_model: MakeModel) -> Path:
    return make_model("base")


@pytest.fixture
def one(make_model: MakeModel, base: Path) -> Path:
    return make_model("one", seed=1, base=base)


@pytest.fixture
def two(make_model: MakeModel, base: Path) -> Path:
    return make_model("two", seed=2, base=base)


def test_merge_is_written_with_its_lineage(base: Path, one: Path, two: Path, tmp_path: Path) -> None:
    recipe = linear({one: 1, two: 3}, base_model=str(base), parameters={"scale": 1.5})
    folder = write_merge(recipe, tmp_path / "out")
    assert folder == tmp_path / "out"
    origin, first, second = (load(path) for path in (base, one, two))
    for name, tensor in load(folder).items():
        start = origin[name].double()
        want = start + 1.5 * ((first[name].double() + 3 * second[name].double()) / 4 - start)
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor.double(), want, rtol=0, atol=1e-6)
    lineage = json.loads((folder / "lineage.json").read_text())
    assert lineage["schema"] == "kinship.lineage/2"
    assert lineage["recipe"] == recipe.to_dict()
    for parent, path in zip(lineage["parents"], (base, one, two), strict=True):
        with open_checkpoint(path) as checkpoint:
            assert parent == {"model": str(path), "digest": checkpoint.digest}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype_of_the_recipe_is_honoured(one: Path, two: Path, tmp_path: Path, dtype: str) -> None:
    """It is the dtype that inputs are rounded to, as in mergekit; out_dtype rounds the result alone."""
    kind = getattr(torch, dtype)
    exact = load(write_merge(linear({one: 1, two: 1}), tmp_path / "exact"))
    folder = write_merge(linear({one: 1, two: 1}, out_dtype=dtype), tmp_path / "out")
    early = write_merge(linear({one: 1, two: 1}, dtype=dtype), tmp_path / "early")
    for name, tensor in load(folder).items():
        assert torch.equal(tensor, exact[name].to(kind))
        first, second = (load(path)[name].to(kind).double() for path in (one, two))
        eps = torch.finfo(kind).eps
        torch.testing.assert_close(load(early)[name].double(), (first + second) / 2, rtol=0.5 * eps, atol=1e-6 + eps**2)
    for path in (folder, early):
        assert json.loads((path / "config.json").read_text())["dtype"] == dtype


def test_without_dtype_the_stored_ones_promote(make_model: MakeModel, base: Path, tmp_path: Path) -> None:
    halves = {make_model(f"b{seed}", seed=seed, base=base, dtype=torch.bfloat16): 1.0 for seed in (1, 2)}
    assert {tensor.dtype for tensor in load(write_merge(linear(halves), tmp_path / "same")).values()} == {
        torch.bfloat16
    }
    mixed = halves | {make_model("h", seed=3, base=base, dtype=torch.float16): 1.0}
    assert {tensor.dtype for tensor in load(write_merge(linear(mixed), tmp_path / "mixed")).values()} == {torch.float32}


def test_half_precision_inputs_are_summed_in_fp32(make_model: MakeModel, base: Path, tmp_path: Path) -> None:
    paths = [make_model(f"b{seed}", seed=seed, base=base, dtype=torch.bfloat16) for seed in (1, 2, 3)]
    got = load(write_merge(linear(dict.fromkeys(paths, 1.0), dtype="float32"), tmp_path / "out"))
    for name, tensor in got.items():
        want = sum(load(path)[name].double() for path in paths) / 3
        torch.testing.assert_close(tensor.double(), want, rtol=1e-6, atol=1e-6)


def test_integer_buffers_are_copied(one: Path, two: Path, tmp_path: Path) -> None:
    ids = torch.arange(7)
    for path in (one, two):
        save_file(load(path) | {"ids": ids}, path / "model.safetensors")
    folder = write_merge(linear({one: 1, two: 1}, dtype="bfloat16"), tmp_path / "out")
    assert torch.equal(load(folder)["ids"], ids)
    assert load(folder)["ids"].dtype == torch.int64
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_integer_buffers_that_differ_are_refused(one: Path, two: Path, tmp_path: Path) -> None:
    for path, last in ((one, 3), (two, 4)):
        save_file(load(path) | {"ids": torch.tensor([1, last])}, path / "model.safetensors")
    with pytest.raises(MismatchedModels, match="'ids'"):
        write_merge(linear({one: 1, two: 1}), tmp_path / "out")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["base", "one", "two"]


def test_weights_beyond_the_dtype_are_refused(one: Path, two: Path, tmp_path: Path) -> None:
    huge = load(one)
    huge["model.norm.weight"][0] = 1e6
    save_file(huge, one / "model.safetensors")
    with pytest.raises(NonFiniteWeights, match=r"'model\.norm\.weight'"):
        write_merge(linear({one: 1, two: 1}, dtype="float16"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_same_recipe_gives_the_same_bytes(one: Path, two: Path, tmp_path: Path) -> None:
    recipe = parse_recipe(
        {
            "merge_method": "slerp",
            "base_model": str(two),
            "models": [{"model": str(one)}, {"model": str(two)}],
            "parameters": {"t": [0.1, 0.8]},
        }
    )
    first, second = (write_merge(recipe, tmp_path / name) for name in ("first", "second"))
    for name in ("model.safetensors", "lineage.json", "config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_refusals_come_before_reading_and_leave_nothing(
    one: Path, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*args: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(run, "execute", unexpected)
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputExists):
        write_merge(linear({one: 1, two: 1}), tmp_path / "taken")
    with pytest.raises(ReferenceNotFound, match="absent"):
        write_merge(linear({one: 1, tmp_path / "absent": 1}), tmp_path / "out")
    save_file({"model.norm.weight": torch.zeros(8)}, tmp_path / "less.safetensors")
    with pytest.raises(MismatchedModels, match="less"):
        write_merge(linear({one: 1, tmp_path / "less.safetensors": 1}), tmp_path / "out")
    with pytest.raises(InvalidConfig, match="sum to zero"):
        write_merge(linear({one: 1, two: -1}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


# Real models


@pytest.fixture
def llamas(tmp_path: Path) -> Callable[[bool], list[Path]]:
    """Two one-layer Llamas as transformers saves them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(tied: bool) -> list[Path]:
        config = LlamaConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=20,
            max_position_embeddings=32, tie_word_embeddings=tied,
        )  # fmt: skip
        paths = [tmp_path / f"llama-{seed}" for seed in (0, 1)]
        for seed, path in enumerate(paths):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                LlamaForCausalLM(config).save_pretrained(path)
        return paths

    return make


@pytest.mark.parametrize("tied", [False, True])
def test_sharded_merge_loads_in_transformers(llamas: Callable[[bool], list[Path]], tmp_path: Path, tied: bool) -> None:
    from transformers import AutoModelForCausalLM

    one, two = llamas(tied)
    assert ("lm_head.weight" in load(one)) is not tied
    folder = write_merge(linear({one: 1, two: 3}), tmp_path / "out", shard_bytes=4000)
    assert (folder / INDEX_NAME).exists()
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.tensors.keys() == load(one).keys()

    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    state = model.state_dict()
    for name, tensor in load(one).items():
        torch.testing.assert_close(state[name], 0.25 * tensor + 0.75 * load(two)[name])
    head = model.get_output_embeddings().weight
    assert (head.data_ptr() == model.get_input_embeddings().weight.data_ptr()) is tied
    assert torch.equal(head, state["model.embed_tokens.weight"]) is tied
