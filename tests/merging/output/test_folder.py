import hashlib
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from kinship.checkpoints.dtypes import BY_NAME
from kinship.checkpoints.opening import INDEX_NAME, open_checkpoint
from kinship.errors import OutputExists
from merging.offspring.weights import TensorStream
from merging.output.folder import write_model_folder
from merging.planning.graph import Spec
from merging.recipe.schema import Recipe, load_recipe, parse_recipe

MakeModel = Callable[..., Path]
Tensors = dict[str, torch.Tensor]

TENSORS: Tensors = {f"layers.{index}.w": torch.full((10, 10), float(index)) for index in range(5)}
COMPANIONS = {
    "tokenizer.json": '{"model": {}}',
    "tokenizer_config.json": "{}",
    "special_tokens_map.json": "{}",
    "generation_config.json": "{}",
    "tokenizer.model": "binary",
    "merges.txt": "a b",
    "chat_template.jinja": "{{ messages }}",
    "LICENSE": "free",
}
FOREIGN = {
    "README.md": "# The parent",
    "lineage.json": '{"of": "the parent"}',
    "pytorch_model.bin": "pickle",
    "pytorch_model.bin.index.json": "{}",
    "SHA256SUMS": "of the parent",
}


@pytest.fixture
def recipe() -> Recipe:
    return parse_recipe(
        {"merge_method": "linear", "models": [{"model": "org/a"}, {"model": "org/b"}], "parameters": {"weight": 1}}
    )


@pytest.fixture
def template(make_model: MakeModel) -> Path:
    folder = make_model("template")
    for name, text in (COMPANIONS | FOREIGN).items():
        (folder / name).write_text(text)
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": {"model.norm.weight": "model.safetensors"}}))
    (folder / "onnx").mkdir()
    return folder


@pytest.fixture
def write(tmp_path: Path, template: Path, recipe: Recipe) -> Callable[..., Path]:
    def write(tensors: Tensors | TensorStream = TENSORS, **options: Any) -> Path:
        path = tmp_path / "out"
        stream = made(tensors) if isinstance(tensors, dict) else tensors
        options = {"lineage": {"schema": "kinship.lineage/1"}, "parents": ["org/a", "org/b"]} | options
        write_model_folder(path, stream, template=open_checkpoint(template), recipe=recipe, **options)
        return path

    return write


Write = Callable[..., Path]


def made(tensors: Tensors, stream: Iterator[tuple[str, torch.Tensor]] | None = None) -> TensorStream:
    specs = [
        Spec(name, BY_NAME[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape))
        for name, tensor in tensors.items()
    ]
    return TensorStream(specs, iter(tensors.items()) if stream is None else stream)


def test_folder_is_complete(write: Write, template: Path, recipe: Recipe) -> None:
    folder = write()
    made = {"model.safetensors", "config.json", "mergekit_config.yml", "lineage.json", "README.md", "SHA256SUMS"}
    assert {item.name for item in folder.iterdir()} == made | COMPANIONS.keys()
    for name, text in COMPANIONS.items():
        assert (folder / name).read_text() == text
    assert json.loads((folder / "lineage.json").read_text()) == {"schema": "kinship.lineage/1"}
    assert load_recipe(folder / "mergekit_config.yml") == recipe
    written = load_file(folder / "model.safetensors")
    assert written.keys() == TENSORS.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in TENSORS.items())


def test_checksums_are_those_of_every_other_file(write: Write) -> None:
    folder = write(shard_bytes=900)
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert sums == {
        item.name: hashlib.sha256(item.read_bytes()).hexdigest()
        for item in folder.iterdir()
        if item.name != "SHA256SUMS"
    }


def test_model_card_names_all_parents(write: Write) -> None:
    card = (write(scores={"piqa": 0.625}) / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields["base_model"] == ["org/a", "org/b"]
    assert fields["base_model_relation"] == "merge"
    assert {"merge", "model-kinship"} <= set(fields["tags"])
    assert "| piqa | 0.6250 |" in body
    assert "merge_method: linear" in body


@pytest.mark.parametrize(("shard_bytes", "counts"), [(400, [1] * 5), (900, [2, 2, 1]), (1, [1] * 5), (1200, [3, 2])])
def test_shards_hold_every_tensor_once_under_an_index(write: Write, shard_bytes: int, counts: list[int]) -> None:
    folder = write(shard_bytes=shard_bytes)
    files = sorted(folder.glob("*.safetensors"))
    assert [file.name for file in files] == [
        f"model-{index + 1:05d}-of-{len(counts):05d}.safetensors" for index in range(len(counts))
    ]
    assert [len(load_file(file)) for file in files] == counts
    index = json.loads((folder / INDEX_NAME).read_text())
    assert index["metadata"]["total_size"] == 5 * 400
    assert index["weight_map"] == {name: file.name for file in files for name in load_file(file)}
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.tensors.keys() == TENSORS.keys()
        assert all(torch.equal(checkpoint.tensor(name), tensor) for name, tensor in TENSORS.items())


def test_shards_say_that_they_are_torch_tensors(write: Write) -> None:
    """transformers refuses files without this."""
    with safe_open(write() / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_files_are_as_readable_as_others(write: Write) -> None:
    folder = write(shard_bytes=900)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize(("key", "dtype"), [("dtype", torch.bfloat16), ("torch_dtype", torch.float16)])
def test_config_tells_the_dtype_of_the_weights(write: Write, template: Path, key: str, dtype: torch.dtype) -> None:
    (template / "config.json").write_text(json.dumps({"model_type": "llama", key: "float32"}))
    buffer = {"ids": torch.arange(3)}
    folder = write({name: tensor.to(dtype) for name, tensor in TENSORS.items()} | buffer)
    assert json.loads((folder / "config.json").read_text()) == {
        "model_type": "llama",
        key: str(dtype).removeprefix("torch."),
    }


def test_template_may_be_a_single_file(write: Write, template: Path, recipe: Recipe, tmp_path: Path) -> None:
    with open_checkpoint(template / "model.safetensors") as single:
        write_model_folder(tmp_path / "bare", made(TENSORS), template=single, recipe=recipe, lineage={}, parents=["a"])
    assert not (tmp_path / "bare/tokenizer.json").exists()
    assert load_file(tmp_path / "bare/model.safetensors").keys() == TENSORS.keys()


def test_existing_folder_is_kept_unless_forced(write: Write) -> None:
    folder = write()
    before = (folder / "SHA256SUMS").read_bytes()
    with pytest.raises(OutputExists):
        write({"other": torch.zeros(2)})
    (folder / "note").touch()
    with pytest.raises(OutputExists, match="note in it was not written by kinship"):
        write({"other": torch.zeros(2)}, force=True)
    assert (folder / "SHA256SUMS").read_bytes() == before
    (folder / "note").unlink()
    write({"other": torch.zeros(2)}, force=True)
    assert set(load_file(folder / "model.safetensors")) == {"other"}


@pytest.mark.parametrize("shard_bytes", [1, 10**6])
def test_exception_midway_leaves_nothing(write: Write, tmp_path: Path, shard_bytes: int) -> None:
    def failing() -> Iterator[tuple[str, torch.Tensor]]:
        yield "a", torch.zeros(3)
        yield "b", torch.zeros(3)
        raise RuntimeError("midway")

    before = sorted(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="midway"):
        write(made(dict.fromkeys("abc", torch.zeros(3)), failing()), shard_bytes=shard_bytes)
    assert sorted(tmp_path.iterdir()) == before


def test_views_are_written_whole(write: Write) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    folder = write({"turned": whole.T, "part": whole[1:, :2]})
    written = load_file(folder / "model.safetensors")
    assert torch.equal(written["turned"], whole.T)
    assert torch.equal(written["part"], whole[1:, :2])


def test_only_regular_files_of_the_folder_are_copied(write: Write, template: Path, tmp_path: Path) -> None:
    """A LICENSE that was a link to a file of the system was copied, and uploaded."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (template / "LICENSE").unlink()
    (template / "LICENSE").symlink_to(secret)
    (template / "extra.txt").symlink_to("../secret")
    (template / "dangling.txt").symlink_to("nowhere")
    (template / "loop.txt").symlink_to("loop.txt")
    (template / "zero.json").symlink_to("/dev/zero")
    (template / "NOTICE").hardlink_to(secret)
    os.mkfifo(template / "pipe.json")
    (template / "folder.json").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(template)  # a socket's path is short
        listening.bind("socket.json")
        os.chdir(here)
    (template / "inner.txt").symlink_to("merges.txt")
    (template / "two\nlines.txt").write_text("")
    told: list[str] = []
    folder = write(told=told.append)
    assert {file.name for file in folder.iterdir()} == {
        "model.safetensors", "config.json", "mergekit_config.yml", "lineage.json", "README.md", "SHA256SUMS",
        "inner.txt",
    } | COMPANIONS.keys() - {"LICENSE"}  # fmt: skip
    assert all(stat.S_ISREG(file.lstat().st_mode) for file in folder.iterdir())
    assert b"secret" not in b"".join(file.read_bytes() for file in folder.iterdir())
    left_out = {Path(text.split(" is left out")[0]).name: text for text in told}
    assert left_out.keys() == {
        "LICENSE", "extra.txt", "dangling.txt", "loop.txt", "zero.json", "NOTICE", "pipe.json", "folder.json",
        "socket.json", "two\nlines.txt",
    }  # fmt: skip
    assert "leads out of the folder" in left_out["LICENSE"]
    assert "a pipe" in left_out["pipe.json"]


def test_blobs_of_the_hub_cache_are_copied(write: Write, template: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    template.rename(snapshot)
    blob = snapshot.parents[1] / "blobs" / "b"
    blob.parent.mkdir()
    (snapshot / "LICENSE").rename(blob)
    (snapshot / "LICENSE").symlink_to("../../blobs/b")
    template.symlink_to(snapshot)
    assert (write() / "LICENSE").read_text() == "free"
