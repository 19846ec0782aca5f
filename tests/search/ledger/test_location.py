"""Where a run is, and the lock of its folder: who holds it, and that looking does no harm."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from kinship.errors import LedgerError, OutputNotWritable
from search.ledger.ledger import Ledger
from search.ledger.location import (
    LEDGER_NAME,
    LOCK_NAME,
    POINTER_NAME,
    LedgerLocation,
    hold_folder,
    holds_run,
    is_held,
    location_of,
    mark_started,
    write_pointer,
)
from tests.faults.full_disk import full_disk


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mysql://host/db#run", "'mysql' is not known"),
        ("runs/first", "no database URL"),
        ("postgresql://ann:secret@host/db", "ann@host/db does not say which run"),
    ],
)
def test_what_is_no_place(text: str, reason: str) -> None:
    with pytest.raises(LedgerError, match=reason) as raised:
        LedgerLocation.parse(text)
    assert "secret" not in raised.value.message
    assert "postgresql://USER@HOST/DATABASE#RUN" in raised.value.hint


def test_a_folder_remembers_where_its_run_is(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    assert not holds_run(folder)
    given = location_of(folder, "postgresql://ann:se%23cret@db.lab:5433/merges")
    assert (given.run, given.url.password) == ("first", "se#cret")
    write_pointer(folder, given)
    assert holds_run(folder)
    hidden = location_of(tmp_path, "postgresql://db.lab/merges?password=se%23cret&sslmode=require#one")
    assert str(hidden) == "postgresql+psycopg://db.lab/merges?sslmode=require#one"
    assert "cret" not in (folder / POINTER_NAME).read_text()
    found = location_of(folder)
    assert (str(found), found.url.password) == (str(given), None)
    assert location_of(folder, "postgresql://ann:other@db.lab:5433/merges#first").url.password == "other"
    with pytest.raises(LedgerError, match=r"kept in .*merges#first, not in .*#second"):
        location_of(folder, "postgresql://ann@db.lab:5433/merges#second")
    (folder / POINTER_NAME).write_text("[]")
    with pytest.raises(LedgerError, match="does not say where"):
        location_of(folder)


def test_a_run_in_a_file_stays_in_it(tmp_path: Path) -> None:
    path = tmp_path / LEDGER_NAME
    Ledger(path).close()
    write_pointer(path.parent, LedgerLocation.of_file(path))
    assert not (path.parent / POINTER_NAME).exists()
    with pytest.raises(LedgerError, match=r"ledger\.sqlite, not in"):
        location_of(path.parent, "postgresql://db.lab/merges#first")


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="holds no run"):
        Ledger.of_run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_who_holds_a_folder_can_be_seen(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert not is_held(folder / LOCK_NAME)
    lock = hold_folder(folder)
    assert is_held(folder / LOCK_NAME)
    with pytest.raises(LedgerError, match="Another process"):
        hold_folder(folder)
    lock.release()
    assert not is_held(folder / LOCK_NAME)


def test_a_lock_that_is_none_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK_NAME)  # opening it waits for who writes
    assert not is_held(tmp_path / LOCK_NAME)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(LedgerError, match="loop cannot be read"):
        is_held(tmp_path / "loop")


def test_a_search_begins_while_others_look(tmp_path: Path) -> None:
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            is_held(tmp_path / LOCK_NAME)
            time.sleep(0.005)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(20):
            hold_folder(tmp_path).release()
    finally:
        over.set()
        for looker in lookers:
            looker.join()


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_folder(tmp_path).release()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OutputNotWritable, match="cannot be locked"):
        hold_folder(tmp_path)
    with pytest.raises(LedgerError, match="cannot be locked"):
        is_held(tmp_path / LOCK_NAME)


def test_a_full_disk_is_told_as_the_run_is_marked(tmp_path: Path) -> None:
    with full_disk(tmp_path, 0), pytest.raises(OutputNotWritable, match=str(tmp_path)):
        mark_started(tmp_path)
