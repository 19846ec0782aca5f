import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship.checkpoints.frame import frame_of
from kinship.checkpoints.opening import INDEX_NAME, open_checkpoint
from kinship.errors import KinshipWarning, MalformedCheckpoint, ReferenceNotFound
from merging.merge import write_merge
from merging.output.verify import verify_folder
from merging.recipe.schema import parse_recipe

MakeModel = Callable[..., Path]


@pytest.fixture
def merged(make_model: MakeModel, tmp_path: Path) -> Path:
    """A merge in shards, whose config says everything."""
    base = make_model("base")
    config = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 11, "dtype": "float32"}
    (base / "config.json").write_text(json.dumps(config))
    other = make_model("other", seed=1, base=base)
    models = [{"model": str(path), "parameters": {"weight": 1}} for path in (base, other)]
    return write_merge(
        parse_recipe({"merge_method": "linear", "models": models}), str(tmp_path / "merged"), shard_bytes=23_000
    )


def wrong(folder: Path) -> dict[str, str]:
    return {check.name: check.detail for check in verify_folder(folder) if check.ok is False}


def test_a_merge_is_whole(merged: Path) -> None:
    assert (merged / INDEX_NAME).exists()
    checks = verify_folder(str(merged))
    assert {check.name for check in checks if check.ok} == {
        "checksums", "headers", "index", "heads", "num_hidden_layers", "vocab_size", "hidden_size", "dtype",
    }  # fmt: skip
    assert len(checks) == 8


def test_a_flipped_bit_is_found(merged: Path) -> None:
    file = sorted(merged.glob("*.safetensors"))[1]
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    assert file.name in wrong(merged)["checksums"]


def test_a_missing_shard_is_found(merged: Path) -> None:
    sorted(merged.glob("*.safetensors"))[1].unlink()
    assert {"checksums", "headers"} <= wrong(merged).keys()


def test_a_file_that_was_cut_short_is_found(merged: Path) -> None:
    (merged / "SHA256SUMS").unlink()
    file = sorted(merged.glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-1])
    assert wrong(merged).keys() == {"headers"}
    assert next(check.ok for check in verify_folder(merged) if check.name == "checksums") is None


def test_an_index_that_is_wrong_is_found(merged: Path) -> None:
    index = json.loads((merged / INDEX_NAME).read_text())
    index["metadata"]["total_size"] += 1
    (merged / INDEX_NAME).write_text(json.dumps(index))
    assert "index" in wrong(merged)


@pytest.mark.parametrize(
    ("key", "value"), [("num_hidden_layers", 3), ("vocab_size", 12), ("hidden_size", 9), ("dtype", "bfloat16")]
)
def test_a_config_of_another_model_is_found(merged: Path, key: str, value: object) -> None:
    config = json.loads((merged / "config.json").read_text())
    (merged / "config.json").write_text(json.dumps(config | {key: value}))
    assert wrong(merged).keys() == {"checksums", key}


def test_a_tied_head_that_differs_is_found(make_model: MakeModel) -> None:
    folder = make_model("tied")
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    tensors = load_file(folder / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors | {"lm_head.weight": head}, folder / "model.safetensors")
    assert wrong(folder) == {}
    head[3, 3] += 1
    save_file(tensors | {"lm_head.weight": head}, folder / "model.safetensors")
    assert wrong(folder).keys() == {"heads"}


def test_a_lost_head_is_found(make_model: MakeModel) -> None:
    folder = make_model("lost")
    config = {"tie_word_embeddings": False, "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    assert wrong(folder).keys() == {"heads"}
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"lm_head.weight": torch.zeros(11, 8)}, folder / "model.safetensors")
    assert wrong(folder) == {}


def test_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ReferenceNotFound):
        verify_folder(tmp_path / "absent")


ODD = ["x", [1], {"a": 1}, 5, True, 1e300, []]
KINDS = ("model_type", "architectures", "text_config", "auto_map")
SIZES = ("dtype", "torch_dtype", "num_hidden_layers", "vocab_size", "hidden_size", "tie_word_embeddings", "layer_types")


@pytest.mark.parametrize("key", [*KINDS, *SIZES])
def test_a_config_of_any_types_is_told(merged: Path, key: str) -> None:
    """A value in a form that no model has is refused where it is read, or differs from what the tensors have."""
    (merged / "SHA256SUMS").unlink()
    file = merged / "config.json"
    whole = json.loads(file.read_text()) | {"architectures": ["LlamaForCausalLM"]}
    for value in ODD:
        file.write_text(json.dumps(whole | {key: value}))
        checks = verify_folder(merged)
        assert all(isinstance(check.detail, str) for check in checks)
        try:
            with open_checkpoint(merged) as model:
                frame_of(model)
        except MalformedCheckpoint as error:
            assert f"config.json: {key!r} is" in error.message  # noqa: PT017
            assert not {check.name: check for check in checks}["headers"].ok
    file.write_text(json.dumps(whole | {key: None}))
    assert {check.name: check.ok for check in verify_folder(merged)}["headers"]


def test_an_index_of_any_type_is_told(make_model: MakeModel) -> None:
    folder = make_model("one")
    for listed in ODD[:-1]:
        (folder / INDEX_NAME).write_text(json.dumps({"weight_map": listed}))
        with warnings.catch_warnings(action="ignore", category=KinshipWarning):
            assert "index" in wrong(folder)
