"""Hostile files: each gives a typed error, in bounded memory, and nothing outside the model's folder is read."""

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinship import kinship_matrix
from kinship.checkpoints.header import MAX_HEADER_BYTES
from kinship.checkpoints.opening import INDEX_NAME, open_checkpoint
from kinship.errors import KinshipError, MalformedCheckpoint, NonFiniteWeights
from tests.conftest import MakeModel
from tests.kinship.adapters import Q0, factors, write

MEGABYTE = 1 << 20
SECRET = "the secret of another folder"


@pytest.fixture
def folder(make_model: MakeModel) -> Path:
    """A sound model, for the tests to damage."""
    return make_model("model")


@pytest.fixture
def secret(make_model: MakeModel) -> Path:
    """Weights and a config outside the model's folder that must not be read."""
    folder = make_model("secret", seed=1)
    (folder / "config.json").write_text(json.dumps({"model_type": SECRET}))
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], bool]:
    """Whether any file under a folder was opened, by whatever name, while the test ran."""
    seen: list[Path] = []
    os_open, io_open = os.open, open

    def record(place: Any) -> None:
        if isinstance(place, str | Path):
            seen.append(Path(place).resolve())

    def counted_os(place: Any, *args: Any, **options: Any) -> int:
        record(place)
        return os_open(place, *args, **options)

    def counted_io(place: Any, *args: Any, **options: Any) -> Any:
        record(place)
        return io_open(place, *args, **options)

    monkeypatch.setattr(os, "open", counted_os)
    monkeypatch.setattr("builtins.open", counted_io)
    monkeypatch.setattr("io.open", counted_io)
    return lambda folder: any(place.is_relative_to(folder.resolve()) for place in seen)


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def packed(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def entry(begin: int, end: int, shape: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


def use(reference: object) -> None:
    """Open and read everything, as a comparison would."""
    with open_checkpoint(reference) as checkpoint:  # type: ignore[arg-type]
        for name in checkpoint.tensors:
            checkpoint.tensor(name)


def refusal_of(reference: object, limit: int = 8 * MEGABYTE) -> KinshipError:
    """The typed error that using ``reference`` ends with, having allocated at most ``limit`` bytes at a time."""
    tracemalloc.start()
    try:
        with pytest.raises(KinshipError) as refusal:
            use(reference)
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()
    assert len(str(refusal.value)) < 2000
    assert SECRET not in str(refusal.value)
    assert refusal.value.hint
    return refusal.value


# Weights

TWO = {"a": entry(0, 8, [2]), "b": entry(8, 16, [2])}
ENTRY = json.dumps(TWO["a"]).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(packed(TWO, bytes(15)), "beyond the file", id="truncated"),
        pytest.param(packed(TWO), "beyond the file", id="no data"),
        pytest.param(packed(TWO, bytes(16))[:40], "header claims", id="truncated header"),
        pytest.param(packed(TWO, bytes(16), length=2**40), "header claims", id="header of a terabyte"),
        pytest.param(packed(TWO, bytes(16), length=2**63), "header claims", id="header of 8 exabytes"),
        pytest.param(packed(TWO, bytes(16), length=30), "not JSON", id="header length too small"),
        pytest.param(packed(TWO, bytes(16), length=0), "not JSON", id="no header"),
        pytest.param(packed({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)), "overlap", id="overlap"),
        pytest.param(packed({"a": entry(0, 2**62, [2**60])}, bytes(8)), "beyond the file", id="exabytes of data"),
        pytest.param(packed({"a": entry(2**62, 2**62 + 8, [2])}, bytes(8)), "beyond", id="offset of exabytes"),
        pytest.param(packed({"a": entry(-8, 0, [2])}, bytes(8)), "claims bytes", id="before the file"),
        pytest.param(packed({"a": entry(0, 8, [-2])}, bytes(8)), "impossible shape", id="negative shape"),
        pytest.param(packed({"a": entry(0, 8, [-1, -2])}, bytes(8)), "impossible shape", id="two negatives"),
        pytest.param(packed({"a": entry(0, 0, [2**32, 2**32])}), "impossible shape", id="product overflows to 0"),
        pytest.param(packed({"a": entry(0, 8, [2**63 + 1, 2])}, bytes(8)), "impossible shape", id="size overflows"),
        pytest.param(packed({"a": entry(0, 8, [2**62] * 100_000)}, bytes(8)), "impossible shape", id="many sizes"),
        pytest.param(packed({"a": entry(0, 4, [1] * 65)}, bytes(4)), "impossible shape", id="65 dimensions"),
        pytest.param(packed({"a": {"dtype": "X" * 10**6, "shape": [], "data_offsets": [0, 0]}}), "dtype", id="long"),
        pytest.param(packed(b'{"a":%s,"a":%s}' % (ENTRY, ENTRY), bytes(8)), "twice", id="twins"),
        pytest.param(packed(b'{"a":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}}', bytes(8)), "twice",
                     id="twin keys"),
        pytest.param(packed(b'{"":0%s}' % (b',"":0' * 50_000)), "twice", id="fifty thousand twins"),
        pytest.param(packed(b'{"a":' + b'{"x":' * 100_000 + b"1" + b"}" * 100_001), "not JSON", id="deep objects"),
        pytest.param(packed(b'{"__metadata__":' + b"[" * 9000 + b" " * 90_000), "not JSON", id="deep metadata"),
        pytest.param(packed(b"[" + b"[]," * 500_000 + b"[]]"), "not JSON", id="a million lists"),
        pytest.param(packed(b'{"a":%s}' % ENTRY.replace(b"[2]", b"[%s]" % (b"9" * 5000)), bytes(8)), "not JSON",
                     id="number of 5000 digits"),
        pytest.param(packed(b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)), "not text",
                     id="name is half a letter"),
        pytest.param(packed("utf-16".encode("utf-16")), "not JSON", id="not UTF-8"),
        pytest.param(b"\x80\x04\x95" + bytes(64), "header claims", id="a pickle"),
    ],
)  # fmt: skip
def test_hostile_weights_are_refused_in_little_memory(folder: Path, content: bytes, reason: str) -> None:
    weights(folder).write_bytes(content)
    limit = 8 * MEGABYTE + 16 * len(content)
    error = refusal_of(folder, limit)
    assert isinstance(error, MalformedCheckpoint)
    assert reason in error.message
    assert str(weights(folder)) in error.message


def sparse(file: Path, size: int, start: bytes) -> None:
    """A file that claims ``size`` bytes and takes a few."""
    with open(file, "wb") as stream:
        stream.write(start)
        stream.truncate(size)


@pytest.mark.parametrize("claimed", [MAX_HEADER_BYTES + 1, 4 << 30, 2**63 - 1])
def test_header_of_gigabytes_in_a_file_of_gigabytes_is_refused_unread(folder: Path, claimed: int) -> None:
    sparse(weights(folder), 8 << 30, claimed.to_bytes(8, "little"))
    assert "header claims" in refusal_of(folder, limit=MEGABYTE).message


def test_tensor_of_gigabytes_costs_nothing_to_open(folder: Path) -> None:
    raw = packed({"a": entry(0, 4 << 30, [1 << 30])})
    sparse(weights(folder), len(raw) + (4 << 30), raw)
    tracemalloc.start()
    try:
        with open_checkpoint(folder) as checkpoint:
            assert checkpoint.read("a", (1 << 30) - 3).tolist() == [0.0] * 3
        assert tracemalloc.get_traced_memory()[1] < MEGABYTE
    finally:
        tracemalloc.stop()


def test_shard_cut_short_is_refused_and_named(folder: Path) -> None:
    tensors = load_file(weights(folder))
    weights(folder).unlink()
    weight_map = {}
    for number, name in enumerate(tensors):
        save_file({name: tensors[name]}, folder / f"part-{number}.safetensors")
        weight_map[name] = f"part-{number}.safetensors"
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": weight_map}))
    use(folder)
    last = folder / f"part-{number}.safetensors"
    os.truncate(last, last.stat().st_size - 1)
    assert str(last) in refusal_of(folder).message


def test_file_that_shrinks_after_it_was_opened_is_malformed(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        os.truncate(weights(folder), 2000)
        with pytest.raises(MalformedCheckpoint, match="ended while tensor"):
            checkpoint.tensor("model.norm.weight")


def test_nan_is_named(folder: Path, make_model: MakeModel) -> None:
    tensors = load_file(weights(folder))
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, weights(folder))
    with pytest.raises(NonFiniteWeights, match=r"'model\.norm\.weight' of .*model holds NaN"):
        kinship_matrix([folder], make_model("base"))


# Folders


SHARDS = ["../secret/model.safetensors", "{secret}/model.safetensors", "..", "", "sub", "pipe", "/dev/zero", "x" * 300]


@pytest.mark.parametrize("shard", SHARDS)
def test_index_names_only_files_of_its_folder(
    folder: Path, secret: Path, opened: Callable[[Path], bool], shard: str
) -> None:
    (folder / "model.safetensors").unlink()  # which would be read in place of what the index names
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe")
    shard = shard.format(secret=secret)
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": {"a": shard}}))
    assert "not a file in that folder" in refusal_of(folder).message
    assert not opened(secret)


NAMES = ["model.safetensors", "weights-of-mine.safetensors", INDEX_NAME, "config.json"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["absolute link", "relative link", "linked folder", "chain of links", "hostname"])
def test_links_out_of_the_folder_are_refused_unread(
    folder: Path, secret: Path, opened: Callable[[Path], bool], name: str, kind: str
) -> None:
    target = secret / ("config.json" if name.endswith(".json") else "model.safetensors")
    weights(folder).rename(folder / "renamed.bin")
    (folder / name).unlink(missing_ok=True)
    match kind:
        case "absolute link":
            (folder / name).symlink_to(target)
        case "relative link":
            (folder / name).symlink_to(f"../secret/{target.name}")
        case "linked folder":
            (folder / "inside").symlink_to(secret, target_is_directory=True)
            (folder / name).symlink_to(f"inside/{target.name}")
        case "chain of links":
            (folder / "first").symlink_to(target)
            (folder / name).symlink_to("first")
        case _:
            (folder / name).symlink_to("/etc/hostname")
    error = refusal_of(folder)
    assert f"{folder / name} is a link to" in error.message
    assert "outside the model's folder" in error.message
    assert not opened(secret)
    assert not opened(Path("/etc/hostname"))


def test_link_within_the_folder_is_fine(folder: Path) -> None:
    weights(folder).rename(folder / "elsewhere")
    weights(folder).symlink_to("elsewhere")
    use(folder)


def test_link_to_the_folder_itself_is_fine(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    use(tmp_path / "link")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop"])
def test_what_is_no_file_is_refused_without_waiting(folder: Path, name: str, kind: str) -> None:
    weights(folder).unlink()
    (folder / name).unlink(missing_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(folder / name)
        case "folder":
            (folder / name).mkdir()
        case _:
            (folder / name).symlink_to(name)
    assert isinstance(refusal_of(folder), KinshipError)


def test_pipe_as_a_model_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    refusal_of(tmp_path / "pipe.safetensors")


@pytest.mark.parametrize("name", [INDEX_NAME, "config.json"])
@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b"\xff\xfe", b"", b"[]", b"NaN", b'{"weight_map": ' + b"9" * 5000, rb'{"a\ud800": 1}']
)
def test_hostile_json_is_refused(folder: Path, name: str, content: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    assert str(folder / name) in refusal_of(folder).message


@pytest.mark.parametrize("name", [INDEX_NAME, "config.json"])
def test_json_of_gigabytes_is_refused_unread(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    sparse(folder / name, 8 << 30, b"{")
    assert "at most 33554432 were expected" in refusal_of(folder, limit=MEGABYTE).message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_told(folder: Path) -> None:
    weights(folder).chmod(0)
    assert "Permission denied" in refusal_of(folder).message


def test_failing_disk_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: object, *rest: object) -> bytes:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("kinship.file_state._sample", fail)
    error = refusal_of(folder)
    assert "Input/output error" in error.message
    assert str(folder) in error.message


# Adapters


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> Path:
    return write(tmp_path / "lora", factors(folder, {Q0: 2}))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_files_of_an_adapter_are_its_own(
    folder: Path, adapter: Path, secret: Path, opened: Callable[[Path], bool], name: str, kind: str
) -> None:
    (adapter / name).rename(secret / name)
    match kind:
        case "link":
            (adapter / name).symlink_to(secret / name)
        case "pipe":
            os.mkfifo(adapter / name)
        case _:
            (adapter / name).mkdir()
    assert str(adapter / name) in refusal_of(f"{folder}+{adapter}").message
    assert not opened(secret)


@pytest.mark.parametrize("rank", [0, 9, 10**8])
def test_adapter_of_an_absurd_rank_is_refused_unread(folder: Path, adapter: Path, rank: int) -> None:
    size = 4 * 8 * rank
    header = {
        f"base_model.model.{Q0}.lora_A.weight": entry(0, size, [rank, 8]),
        f"base_model.model.{Q0}.lora_B.weight": entry(size, 2 * size, [8, rank]),
    }
    raw = packed(header)
    sparse(adapter / "adapter_model.safetensors", len(raw) + 2 * size, raw)
    refusal_of(f"{folder}+{adapter}", limit=MEGABYTE)


def test_adapter_with_a_huge_tensor_of_another_name_is_refused_unread(folder: Path, adapter: Path) -> None:
    raw = packed({"base_model.model.x.weight": entry(0, 4 << 30, [1 << 30])})
    sparse(adapter / "adapter_model.safetensors", len(raw) + (4 << 30), raw)
    assert "'x.weight'" in refusal_of(f"{folder}+{adapter}", limit=MEGABYTE).message


@pytest.mark.parametrize("key", ["alpha_pattern", "rank_pattern"])
@pytest.mark.parametrize("pattern", ["(a*)*b", "(.*.*)*$", "a?" * 30 + "a" * 30, ".*" * 20])
def test_hostile_pattern_is_matched_in_no_time(folder: Path, adapter: Path, key: str, pattern: str) -> None:
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", key: {pattern: 2}}))
    use(f"{folder}+{adapter}")


@pytest.mark.parametrize("key", ["alpha_pattern", "rank_pattern"])
@pytest.mark.parametrize("pattern", ["(" * 500, "[", "\\"])
def test_broken_pattern_is_refused(folder: Path, adapter: Path, key: str, pattern: str) -> None:
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", key: {pattern: 1}}))
    assert key in refusal_of(f"{folder}+{adapter}").message
