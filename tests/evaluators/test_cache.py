import math
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from evaluators.cache import ScoreCache
from tests.evaluators.fakes import fake_task

TASK = fake_task()


def test_what_is_stored_is_found_exactly(tmp_path: Path) -> None:
    results = {0: 0.1, 7: -1 / 3, 12: 1e-300, 3: 1.0}
    ScoreCache(tmp_path / "new" / "scores.sqlite").store("a", TASK, results)
    assert ScoreCache(tmp_path / "new" / "scores.sqlite").load("a", TASK) == results


def test_other_weights_and_other_tasks_are_not_found(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.store("a", TASK, {0: 1.0})
    assert cache.load("b", TASK) == {}
    assert cache.load("a", fake_task(digest="other")) == {}
    assert cache.load("a", fake_task(name="renamed")) == {0: 1.0}


def test_storing_adds_to_what_is_known(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.store("a", TASK, {0: 1.0, 1: 0.0})
    cache.store("a", TASK, {1: 0.5, 2: 0.25})
    assert cache.load("a", TASK) == {0: 1.0, 1: 0.5, 2: 0.25}


def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    connection = ScoreCache(tmp_path / "scores.sqlite")._connect()
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()


def store_many(path: Path, writer: int, rounds: int) -> None:
    for number in range(rounds):
        ScoreCache(path).store(f"{writer}-{number}", TASK, {number: writer / 7})
        ScoreCache(path).store("shared", TASK, {writer: float(writer)})


def check(path: Path, writers: int, rounds: int) -> None:
    cache = ScoreCache(path)
    for writer in range(writers):
        for number in range(rounds):
            assert cache.load(f"{writer}-{number}", TASK) == {number: writer / 7}
    # Writers of the same weights and task may lose each other's documents, never make them up.
    shared = cache.load("shared", TASK)
    assert shared
    assert all(value == writer for writer, value in shared.items())
    assert set(shared) <= set(range(writers))
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_threads_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(store_many, [path] * 4, range(4), [4] * 4))
    check(path, 4, 4)


def test_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    with get_context("fork").Pool(3) as pool:
        pool.starmap(store_many, [(path, writer, 4) for writer in range(3)])
    check(path, 3, 4)


def test_nan_survives_as_nan(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.store("a", TASK, {0: math.nan})
    assert math.isnan(cache.load("a", TASK)[0])
