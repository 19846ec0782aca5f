import errno
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from kinship import output
from kinship.errors import OutputExists, OutputNotWritable
from kinship.output import anything, output_file, output_folder, require_writable, retired

Opener = Callable[..., AbstractContextManager[Path]]


def fill(place: Path, text: str) -> None:
    """Write ``text`` to a file, or into a folder."""
    (place / "inner" if place.is_dir() else place).write_text(text)


def content(place: Path) -> str:
    return (place / "inner" if place.is_dir() else place).read_text()


def make(kind: Opener, path: Path, text: str, **options: Any) -> None:
    with kind(path, **options) as partial:
        fill(partial, text)


def output_own_folder(path: Path, **options: Any) -> AbstractContextManager[Path]:
    """A folder in which whatever there is is ours."""
    return output_folder(path, foreign=lambda folder: None, **options)


@pytest.fixture(params=[output_file, output_own_folder], ids=["file", "folder"])
def kind(request: pytest.FixtureRequest) -> Opener:
    opener: Opener = request.param
    return opener


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_output_takes_its_name_when_complete(kind: Opener, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out"
    with kind(path) as partial:
        fill(partial, "new")
        assert not path.exists()
        assert partial.parent == path.parent
    assert content(path) == "new"
    assert list(path.parent.iterdir()) == [path]


def test_existing_output_is_refused_and_untouched(kind: Opener, tmp_path: Path) -> None:
    path = tmp_path / "out"
    make(kind, path, "old")
    with pytest.raises(OutputExists, match="out exists already"):
        make(kind, path, "new")
    assert content(path) == "old"


def test_force_replaces(kind: Opener, tmp_path: Path) -> None:
    path = tmp_path / "out"
    make(kind, path, "old")
    with kind(path, force=True) as partial:
        fill(partial, "new")
        assert content(path) == "old"
    assert content(path) == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_is_replaced_whole(tmp_path: Path) -> None:
    make(output_folder, tmp_path / "out", "old")
    (tmp_path / "out" / "stale").touch()
    make(output_own_folder, tmp_path / "out", "new", force=True)
    assert [item.name for item in (tmp_path / "out").iterdir()] == ["inner"]


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [False, True])
def test_exception_leaves_nothing_behind_and_the_old_intact(
    kind: Opener, tmp_path: Path, error: BaseException, existing: bool
) -> None:
    path = tmp_path / "out"
    if existing:
        make(kind, path, "old")

    def fail() -> None:
        with kind(path, force=True) as partial:
            fill(partial, "half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert list(tmp_path.iterdir()) == ([path] if existing else [])
    if existing:
        assert content(path) == "old"


def test_full_disk_is_a_typed_error_that_leaves_nothing(kind: Opener, tmp_path: Path) -> None:
    def fail() -> None:
        with kind(tmp_path / "out") as partial:
            fill(partial, "half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputNotWritable, match="No space left on device"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_not_be_so_large_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OutputNotWritable, match="File too large") as raised, output_file(tmp_path / "a"):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    assert "ulimit -f" in raised.value.hint


def test_folder_with_the_longest_name_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 255)
    for content in ("old", "new"):
        with output_folder(folder, force=True, foreign=lambda _: None) as partial:
            (partial / "file").write_text(content)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert (folder / "file").read_text() == "new"


def test_failure_to_take_the_name_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    make(output_folder, path, "old")
    replace = os.replace

    def refuse_partial(source: Path, target: Path) -> None:
        if Path(source).suffix == ".partial":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(output.os, "replace", refuse_partial)
    with pytest.raises(OutputNotWritable):
        make(output_own_folder, path, "new", force=True)
    assert list(tmp_path.iterdir()) == [path]
    assert content(path) == "old"


def test_leavings_of_dead_writers_are_cleared(kind: Opener, tmp_path: Path, dead_pid: int) -> None:
    make(kind, tmp_path / "out", "old")
    (tmp_path / f".out.{dead_pid}.partial").write_text("abandoned")
    folder = tmp_path / f".out.{dead_pid}.retired"
    folder.mkdir()
    (folder / "inner").touch()
    make(kind, tmp_path / "out", "new", force=True)
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_what_belongs_to_others_is_left_alone(kind: Opener, tmp_path: Path, dead_pid: int) -> None:
    others = {
        f".out.{os.getppid()}.partial",  # a living writer
        f".other.{dead_pid}.partial",
        f".outer.{dead_pid}.partial",
        f".out.{dead_pid}.partial.txt",
        f"out.{dead_pid}.partial",
        ".out.partial",
    }
    for name in others:
        (tmp_path / name).touch()
    make(kind, tmp_path / "out", "new")
    assert {item.name for item in tmp_path.iterdir()} == others | {"out"}


def test_leavings_under_ones_own_process_number_do_not_hinder(kind: Opener, tmp_path: Path) -> None:
    """In a container every run has the same process number."""
    abandoned = tmp_path / f".out.{os.getpid()}.partial"
    abandoned.mkdir()
    (abandoned / "inner").touch()
    make(kind, tmp_path / "out", "new")
    assert content(tmp_path / "out") == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_folder_retired_by_a_writer_that_died_before_renaming_is_brought_back(tmp_path: Path, dead_pid: int) -> None:
    make(output_folder, tmp_path / "out", "old")
    (tmp_path / "out").rename(tmp_path / f".out.{dead_pid}.retired")
    with pytest.raises(OutputExists):
        make(output_folder, tmp_path / "out", "new")
    assert content(tmp_path / "out") == "old"


@pytest.mark.parametrize("below", ["out", "deep/er/out"])
def test_place_below_a_regular_file_is_not_writable(kind: Opener, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputNotWritable, match="out"):
        make(kind, tmp_path / "file" / below, "new")
    assert (tmp_path / "file").read_text() == "precious"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_place_without_permission_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output.os, "access", lambda place, mode: Path(place) != tmp_path)
    with pytest.raises(OutputNotWritable, match=str(tmp_path)):
        require_writable(tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []


def test_check_ahead_makes_nothing(tmp_path: Path) -> None:
    require_writable(tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").touch()
    require_writable(tmp_path / "out", force=True)
    with pytest.raises(OutputExists):
        require_writable(tmp_path / "out")


def tree(folder: Path) -> dict[str, str]:
    """All there is, links as where they lead."""
    return {
        str(item.relative_to(folder)): os.readlink(item)
        if item.is_symlink()
        else item.read_text()
        if item.is_file()
        else ""
        for item in folder.rglob("*")
    }


def test_what_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    for name in ("own", "home"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "important").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "to-file").symlink_to("file")
    (tmp_path / "to-folder").symlink_to("home")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-device").symlink_to("/dev/null")
    before = tree(tmp_path)
    refused = {
        (output_file, "home"): "it is a folder, and a file would be written",
        (output_file, "to-folder"): "it is a link to the folder .*home",
        (output_file, "pipe"): "it is a pipe",
        (output_file, "to-device"): "it is a device",
        (output_folder, "home"): "important in it was not written by kinship",
        (output_folder, "to-folder"): "it is a link to the folder .*home",
        (output_own_folder, "to-folder"): "it is a link to the folder .*home",
        (output_own_folder, "file"): "it is a file, and a folder would be written",
        (output_own_folder, "to-file"): "it is a file",
        (output_own_folder, "pipe"): "it is a pipe",
    }
    for (opener, name), reason in refused.items():
        with pytest.raises(OutputExists, match=f"{name} is not replaced: {reason}"):
            make(opener, tmp_path / name, "new", force=True)
        assert tree(tmp_path) == before


def test_links_are_replaced_themselves(kind: Opener, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("nowhere")
    with pytest.raises(OutputExists, match="out exists already, a link to nowhere"):
        make(kind, tmp_path / "out", "new")
    make(kind, tmp_path / "out", "new", force=True)
    assert not (tmp_path / "out").is_symlink()
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_target_of_a_link_to_a_file_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "out").symlink_to("target")
    make(output_file, tmp_path / "out", "new", force=True)
    assert tree(tmp_path) == {"target": "old", "out": "new"}


def test_inputs_are_not_replaced(tmp_path: Path) -> None:
    model = tmp_path / "out" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(model)
    (tmp_path / "hard").hardlink_to(model / "config.json")
    for path, input in {
        "out": model, "out/model": model, "out/model/": tmp_path / "link", "out/../out": tmp_path / "link",
    }.items():  # fmt: skip
        with pytest.raises(OutputExists, match=r"the input .* is (in )?it"):
            require_writable(tmp_path / path, force=True, folder=lambda folder: None, inputs=[input])
    for given in (model, model / "config.json", tmp_path / "hard", tmp_path / "link"):
        with pytest.raises(OutputExists, match="input"):
            require_writable(model / "config.json", force=True, inputs=[given])
    require_writable(model / "new.csv", force=True, inputs=[model])
    require_writable(tmp_path / "out", force=True, folder=lambda folder: None, inputs=[tmp_path / "elsewhere"])


def test_folder_one_works_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "inner")
    for path in (".", "..", "../../here"):
        with pytest.raises(OutputExists, match="where you are working"):
            make(output_own_folder, Path(path), "new", force=True)


def test_what_comes_while_the_output_is_made_is_not_replaced(kind: Opener, tmp_path: Path) -> None:
    def race() -> None:
        with kind(tmp_path / "out") as partial:
            fill(partial, "new")
            (tmp_path / "out").write_text("of another")

    with pytest.raises(OutputExists):
        race()
    assert tree(tmp_path) == {"out": "of another"}


def test_retired_folder_returns_where_its_successor_fails(tmp_path: Path) -> None:
    make(output_folder, tmp_path / "out", "old")

    def interrupted() -> None:
        with retired(tmp_path / "out"):
            assert not (tmp_path / "out").exists()
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert tree(tmp_path) == {"out": "", "out/inner": "old"}
    assert anything(tmp_path) == "out"
