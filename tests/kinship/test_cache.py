import os
import sqlite3
import warnings
from pathlib import Path

import pytest

from kinship import cache as memory
from kinship.cache import fingerprint, recall, remember
from kinship.file_state import states_of


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KINSHIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_remembered_is_recalled_the_latest_first() -> None:
    remember("a", "key", b"old", "one")
    remember("a", "key", b"new", "two")
    remember("b", "key", b"other kind")
    assert recall("a", "key") == ("two", b"new")
    assert recall("a", "key", lambda detail: detail == "one") == ("one", b"old")
    remember("a", "key", b"newer", "one")
    assert recall("a", "key") == ("one", b"newer")
    assert recall("a", "key", lambda detail: detail == "two") == ("two", b"new")
    assert recall("a", "key", lambda detail: False) is None
    assert recall("a", "another") is None


def test_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_BYTES", 10)
    for name in "abc":
        remember("a", name, b"1234")
    assert [bool(recall("a", name)) for name in "abc"] == [False, True, True]


def test_off_keeps_nothing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("KINSHIP_CACHE", "off")
    remember("a", "key", b"value")
    assert recall("a", "key") is None
    assert not folder.exists()


def test_trouble_is_a_warning(folder: Path) -> None:
    folder.mkdir()
    (folder / "kinship.sqlite").write_text("this is no database, though it is long enough to be one" * 20)
    with pytest.warns(UserWarning, match="Nothing is remembered in .*not a database"):
        remember("a", "key", b"value")
    with pytest.warns(UserWarning, match="Nothing is remembered"):
        assert recall("a", "key") is None


def test_folder_that_cannot_be_made_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KINSHIP_CACHE", str(tmp_path / "file/cache"))
    with pytest.warns(UserWarning, match="Nothing is remembered"):
        remember("a", "key", b"value")


def test_fingerprint_changes_with_a_file_and_not_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinship.file_state.YOUNG_SECONDS", 0.0)
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text(file.name)
    before = fingerprint(states_of(files))
    assert before is not None
    assert fingerprint(states_of(reversed(files))) == before
    (tmp_path / "link").symlink_to(files[0])
    assert fingerprint(states_of([tmp_path / "link", files[1]])) == before
    files[1].write_text("c")
    assert fingerprint(states_of(files)) != before
    assert fingerprint(states_of(files[:1])) != before


def test_file_written_just_now_has_no_fingerprint_whatever_its_date(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    os.utime(tmp_path / "a", (0, 0))
    assert fingerprint(states_of([tmp_path / "a"])) is None


def test_several_processes_may_write_at_once(folder: Path) -> None:
    remember("a", "key", b"value")
    with sqlite3.connect(folder / "kinship.sqlite") as other, warnings.catch_warnings(action="error"):
        other.execute("SELECT * FROM facts").fetchall()
        remember("a", "key", b"newer")
    assert recall("a", "key") == ("", b"newer")
