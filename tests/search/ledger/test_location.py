"""The lock of a run's folder: who holds it, and that looking does no harm."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from kinship.errors import LedgerError, OutputNotWritable
from search.ledger.location import LOCK_NAME, hold_folder, is_held, mark_started
from tests.faults.full_disk import full_disk


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
