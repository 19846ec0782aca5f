import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import INDEX_NAME, open_checkpoint
from kinship.errors import KinshipWarning, MalformedCheckpoint, ReferenceNotFound, UnsupportedCheckpoint

MakeModel = Callable[..., Path]
Tensors = dict[str, torch.Tensor]


def save_sharded(folder: Path, tensors: Tensors, shards: int) -> Path:
    """Deal ``tensors`` to ``shards`` files, as in no order that a reader could rely on."""
    folder.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        names = sorted(tensors)[shard::shards]
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"shard": str(shard)})
        weight_map |= dict.fromkeys(names, file)
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.fixture
def folder(make_model: MakeModel) -> Path:
    return make_model("model")


def test_sharded_and_single_files_hold_the_same_tensors(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    sharded = save_sharded(tmp_path / "sharded", tensors, 3)
    for reference in (folder, folder / "model.safetensors", sharded):
        with open_checkpoint(reference) as checkpoint:
            assert list(checkpoint.tensors) == sorted(tensors)
            assert all(torch.equal(checkpoint.tensor(name), tensor) for name, tensor in tensors.items())


def test_shards_without_an_index_are_all_read(folder: Path, tmp_path: Path) -> None:
    sharded = save_sharded(tmp_path / "sharded", load_file(folder / "model.safetensors"), 2)
    (sharded / INDEX_NAME).unlink()
    with open_checkpoint(sharded) as checkpoint, open_checkpoint(folder) as single:
        assert checkpoint.digest == single.digest


def test_model_safetensors_wins_over_other_files_beside_it(folder: Path) -> None:
    save_file({"other": torch.zeros(3)}, folder / "consolidated.safetensors")
    with open_checkpoint(folder) as checkpoint:
        assert "other" not in checkpoint.tensors


def test_read_gives_the_range_asked_for(folder: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    whole = load_file(folder / "model.safetensors")[name].flatten()
    with open_checkpoint(folder) as checkpoint:
        assert torch.equal(checkpoint.read(name, 1000, 234), whole[1000:1234])
        assert torch.equal(checkpoint.read(name, 5000), whole[5000:])
        assert checkpoint.read(name, 3, 0).numel() == 0
        blocks = list(checkpoint.blocks(name, 999))
        assert torch.equal(torch.cat([checkpoint.read(name, *block) for block in blocks]), whole)
        assert max(count for _, count in blocks) == 999


def test_a_closed_checkpoint_opens_its_files_again(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        before = checkpoint.tensor("model.norm.weight")
    assert torch.equal(checkpoint.tensor("model.norm.weight"), before)
    checkpoint.close()


def test_a_file_cut_short_after_opening_is_malformed(folder: Path) -> None:
    file = folder / "model.safetensors"
    with open_checkpoint(folder) as checkpoint:
        last = max(checkpoint.tensors.values(), key=lambda entry: entry.offset)
        file.write_bytes(file.read_bytes()[:-4])
        with pytest.raises(MalformedCheckpoint, match=last.name):
            checkpoint.tensor(last.name)


def test_id_is_the_reference_as_given_and_root_its_start(folder: Path, tmp_path: Path) -> None:
    assert open_checkpoint("model", root=tmp_path).id == "model"
    assert open_checkpoint(folder, id="mine").id == "mine"
    assert open_checkpoint(folder).config["model_type"] == "llama"


# Digests


def digest_of(reference: Path) -> str:
    with open_checkpoint(reference) as checkpoint:
        return checkpoint.digest


def test_digest_is_independent_of_sharding_names_of_files_and_metadata(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (tmp_path / "alone").mkdir()
    save_file(tensors, tmp_path / "alone/weights.safetensors", metadata={"made by": "another tool"})
    references = [folder, tmp_path / "alone", tmp_path / "alone/weights.safetensors"]
    references += [save_sharded(tmp_path / f"in-{count}", tensors, count) for count in (1, 2, 6)]
    assert len({digest_of(reference) for reference in references}) == 1


def one_bit(tensors: Tensors) -> Tensors:
    raw = tensors["model.norm.weight"].clone()
    raw.view(torch.int32)[3] ^= 1
    return tensors | {"model.norm.weight": raw}


def renamed(tensors: Tensors) -> Tensors:
    return {name.replace("layers.1", "layers.2"): tensor for name, tensor in tensors.items()}


def reshaped(tensors: Tensors) -> Tensors:
    return tensors | {"model.norm.weight": tensors["model.norm.weight"].reshape(2, 4)}


def reinterpreted(tensors: Tensors) -> Tensors:
    return tensors | {"model.norm.weight": tensors["model.norm.weight"].view(torch.int32)}


def swapped(tensors: Tensors) -> Tensors:
    one, other = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"
    return tensors | {one: tensors[other], other: tensors[one]}


@pytest.mark.parametrize("change", [one_bit, renamed, reshaped, reinterpreted, swapped])
def test_digest_tells_weights_apart(folder: Path, tmp_path: Path, change: Callable[[Tensors], Tensors]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), tmp_path / "changed.safetensors")
    assert digest_of(tmp_path / "changed.safetensors") != digest_of(folder)


def test_digest_covers_every_block(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = digest_of(folder)
    monkeypatch.setattr(Checkpoint.blocks, "__defaults__", (100,))
    assert digest_of(folder) == whole


# Refusals


@pytest.mark.parametrize("reference", ["no-such-model", "~no-such-user-here/model", "x" * 5000, "nul\0byte"])
def test_reference_to_nothing_is_not_found(reference: str) -> None:
    with pytest.raises(ReferenceNotFound) as refusal:
        open_checkpoint(reference)
    assert reference[:20] in refusal.value.message or repr(reference) in refusal.value.message


def test_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "one.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "two.safetensors")
    with pytest.raises(MalformedCheckpoint, match="'a' is stored in two files"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "shard",
    ["missing.safetensors", "../outside.safetensors", "/etc/passwd", "sub/inside.safetensors", "..", "", "n" * 5000],
)
def test_index_may_only_name_files_of_its_folder(tmp_path: Path, shard: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path / "outside.safetensors", folder / "sub/inside.safetensors"):
        save_file({"a": torch.zeros(2)}, place)
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(MalformedCheckpoint, match="which is not a file in that folder"):
        open_checkpoint(folder)


@pytest.mark.parametrize("files", [["model.safetensors"], ["one.safetensors", "two.safetensors"]])
def test_what_an_index_names_and_no_file_holds_is_told(tmp_path: Path, files: list[str]) -> None:
    for file in files:
        save_file({file: torch.zeros(2)}, tmp_path / file)
    index = {"weight_map": {file: file for file in files} | {"lost.weight": files[0]}}
    (tmp_path / INDEX_NAME).write_text(json.dumps(index))
    with (
        pytest.warns(KinshipWarning, match=r"names 1 tensors .* such as 'lost\.weight'"),
        open_checkpoint(tmp_path) as model,
    ):
        assert list(model.tensors) == files


def test_a_single_file_is_read_beside_an_index_of_older_shards_or_none_at_all(folder: Path) -> None:
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = list(open_checkpoint(folder).tensors)
    (folder / INDEX_NAME).write_text("{")
    with pytest.warns(KinshipWarning, match="read without it"):
        assert list(open_checkpoint(folder).tensors) == names


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": ["a"]}', "{", "\udcff"])
def test_index_of_another_form_is_malformed(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX_NAME).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(MalformedCheckpoint, match=INDEX_NAME):
        open_checkpoint(tmp_path)


def test_quantised_model_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"bits": 4}}))
    with pytest.raises(UnsupportedCheckpoint, match="quantised"):
        open_checkpoint(folder)


def test_broken_config_is_malformed(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')
    with pytest.raises(MalformedCheckpoint, match=r"config\.json"):
        open_checkpoint(folder)


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UnsupportedCheckpoint, match=r"only pytorch_model\.bin"):
        open_checkpoint(tmp_path)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UnsupportedCheckpoint, match="no weights"):
        open_checkpoint(tmp_path)


def test_a_folder_of_models_is_told_by_the_models_in_it(make_model: MakeModel, tmp_path: Path) -> None:
    (tmp_path / "family").mkdir()
    make_model("family/one")
    make_model("family/other")
    with pytest.raises(UnsupportedCheckpoint) as refusal:
        open_checkpoint(tmp_path / "family")
    assert "one, other" in refusal.value.hint


def test_what_is_neither_a_folder_nor_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedCheckpoint, match="neither a folder nor a regular file"):
        open_checkpoint(tmp_path / "model.safetensors")


def test_dangling_link_to_weights_is_no_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "not-downloaded")
    with pytest.raises(UnsupportedCheckpoint, match="no weights"):
        open_checkpoint(tmp_path)


def test_malformed_file_is_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(MalformedCheckpoint, match=r"model\.safetensors is not a valid safetensors file"):
        open_checkpoint(folder)
