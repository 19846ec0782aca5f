import os
import sqlite3
import warnings
from pathlib import Path

import pytest

from kinship import cache as memory
from kinship.cache import fingerprint, recall, remember
from kinship.errors import KinshipWarning
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


@pytest.mark.parametrize("content", [b"this is no database" * 99, b"SQLite format 3\0" + b"?" * 999, b"\0" * 9999])
def test_a_damaged_file_is_set_aside_and_begun_anew(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "kinship.sqlite").write_bytes(content)
    with pytest.warns(KinshipWarning, match="was damaged .* set aside as") as told:
        remember("a", "key", b"value")
    assert len(told) == 1
    with warnings.catch_warnings(action="error"):
        assert recall("a", "key") == ("", b"value")
    (aside,) = folder.glob("kinship.sqlite.damaged-*")
    assert aside.read_bytes() == content


@pytest.mark.parametrize("change", ["value = x'00'", "detail = 'other'", "key = 'two'", "checksum = checksum + 1"])
def test_a_damaged_row_is_forgotten(folder: Path, change: str) -> None:
    remember("a", "one", b"value")
    with sqlite3.connect(folder / "kinship.sqlite") as database:
        database.execute(f"UPDATE known SET {change}")
    database.close()
    with pytest.warns(KinshipWarning, match="was damaged"):
        assert recall("a", "two" if "two" in change else "one") is None
    with warnings.catch_warnings(action="error"):
        assert recall("a", "one") is None
        remember("a", "one", b"value")
        assert recall("a", "one") == ("", b"value")


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
        other.execute("SELECT * FROM known").fetchall()
        remember("a", "key", b"newer")
    assert recall("a", "key") == ("", b"newer")


def test_the_home_of_an_unknown_user_is_no_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KINSHIP_CACHE", "~nobody-of-that-name/cache")
    with pytest.warns(KinshipWarning, match="a user who is not known"):
        remember("kind", "key", b"value")
    assert list(tmp_path.iterdir()) == []
