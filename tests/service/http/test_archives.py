"""A folder as a tar that is never written: what is in it, any part of it, and what is not."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from kinship.errors import InputsChanged
from service.client import Client, ServiceError
from service.http.archives import BLOCK, Archive, archive, range_of
from service.jobs.errors import NotFound
from tests.service.http.conftest import Service

LONG = "ж" * 120


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with files of every length that padding may have, one with a long name, and what stays hidden."""
    model = tmp_path / "run" / "model"
    (model / "inner").mkdir(parents=True)
    for size in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 700_000):
        (model / f"{size}.bin").write_bytes(os.urandom(size))
    (model / "inner" / f"{LONG}.txt").write_text("ü")
    (model / ".lock").write_text("hidden")
    (tmp_path / "secret").write_text("hidden")
    (model / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "run" / "out").symlink_to(tmp_path)
    (tmp_path / "run" / "empty").mkdir()
    return tmp_path / "run"


def whole(made: Archive) -> bytes:
    return b"".join(made.parts(0, made.size))


def test_it_holds_every_file_and_nothing_else(folder: Path) -> None:
    made = archive(folder, "model", "model.tar")
    content = whole(made)
    assert len(content) == made.size
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        told = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
    names = [*(f"{size}.bin" for size in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 700_000)), f"inner/{LONG}.txt"]
    assert told == {f"model/{name}": (folder / "model" / name).read_bytes() for name in names}


def test_any_part_of_it_is_that_part(folder: Path) -> None:
    made = archive(folder, "model", "model.tar")
    content = whole(made)
    for start in (0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 7, made.size - BLOCK, made.size - 1):
        for length in (1, BLOCK, 2 * BLOCK + 3, 300_000):
            end = min(made.size, start + length)
            assert b"".join(made.parts(start, end)) == content[start:end], (start, end)
    assert max(map(len, made.parts(0, made.size))) < 300_000  # no more is in memory at once


def test_what_changes_meanwhile_ends_it_and_has_another_tag(folder: Path) -> None:
    made = archive(folder, "model", "model.tar")
    file = folder / "model" / "700000.bin"
    file.write_bytes(b"short")
    with pytest.raises(InputsChanged, match="changed while it was sent"):
        whole(made)
    assert archive(folder, "model", "model.tar").tag != made.tag
    file.unlink()
    file.symlink_to(folder.parent / "secret")
    with pytest.raises(InputsChanged):
        whole(made)


@pytest.mark.parametrize(
    "path", ["", ".", "..", "../run/model", "/etc", "out", "model/700000.bin", "empty", "a\0b", "x" * 5000]
)
def test_what_is_no_folder_there_is_not_found(folder: Path, path: str) -> None:
    with pytest.raises(NotFound):
        archive(folder, path, "x.tar")


def test_ranges() -> None:
    for asked in ("", "bytes=-", "bytes=1-2,4-5", "bytes=x-", "bytes=1", "bits=1-2"):
        assert range_of(asked, 10) is None, asked
    assert range_of("bytes=5-100", 10) == (5, 10)
    assert range_of("bytes=-100", 10) == (0, 10)
    for asked in ("bytes=10-", "bytes=5-4", "bytes=-0", "bytes=99999999999999999999-"):
        with pytest.raises(ValueError, match="bytes"):
            range_of(asked, 10)


def test_a_folder_of_a_run_over_the_wire(service: Service, tmp_path: Path) -> None:
    model = service.folder / "run" / "best-offspring"
    model.mkdir(exist_ok=True)
    (model / "model.safetensors").write_bytes(os.urandom(3000))
    path = "/runs/run/archives/best-offspring"
    reply = service.get(path, Accept_Encoding="gzip")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/x-tar")
    assert (reply.headers["content-length"], reply.headers["accept-ranges"]) == (str(len(reply.body)), "bytes")
    assert reply.headers["content-disposition"] == "attachment; filename*=utf-8''run-best-offspring.tar"
    part = service.get(path, Range="bytes=100-199", If_Range=reply.headers["etag"])
    assert (part.status, part.body) == (206, reply.body[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(reply.body)}"
    assert service.get(path, Range="bytes=100-199", If_Range='"other"').body == reply.body
    assert service.get(path, If_None_Match=reply.headers["etag"]).status == 304
    beyond = service.get(path, Range="bytes=99999999-")
    assert (beyond.status, beyond.json()["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{len(reply.body)}"
    with Client(service.address) as client:
        saved = client.save_model("run", tmp_path / "best.tar")
        assert saved.read_bytes() == reply.body
        with pytest.raises(ServiceError, match="no folder"):
            client.save_folder("run", "nothing", tmp_path / "other.tar")
        assert not (tmp_path / "other.tar").exists()
