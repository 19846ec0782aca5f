import math
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from evaluators.cache import SEAL, VERSION, ScoreCache, _key, default_path, open_cache
from kinship.errors import CacheError, KinshipWarning
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
    with ScoreCache(tmp_path / "scores.sqlite")._connected() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def store_many(path: Path, writer: int, rounds: int) -> None:
    """Results of the writer's own models, and of one model that all writers share, each with its own documents."""
    for number in range(rounds):
        ScoreCache(path).store(f"{writer}-{number}", TASK, {number: writer / 7})
        ScoreCache(path).store("shared", TASK, {1000 * writer + number: writer / 7})


def check(path: Path, writers: int, rounds: int) -> None:
    cache = ScoreCache(path)
    for writer in range(writers):
        for number in range(rounds):
            assert cache.load(f"{writer}-{number}", TASK) == {number: writer / 7}
    expected = {1000 * writer + number: writer / 7 for writer in range(writers) for number in range(rounds)}
    assert cache.load("shared", TASK) == expected  # no update of one writer was lost to another's
    assert cache.damage() is None
    assert [cache.problem(entry) for entry in cache.entries()] == [None] * (writers * rounds + 1)


def test_threads_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(store_many, [path] * 4, range(4), [5] * 4))
    check(path, 4, 5)


@pytest.mark.parametrize(("writers", "rounds"), [(3, 8), pytest.param(8, 200, marks=pytest.mark.soak)])
def test_processes_write_at_once(tmp_path: Path, writers: int, rounds: int) -> None:
    path = tmp_path / "scores.sqlite"
    with get_context("fork").Pool(writers) as pool:
        pool.starmap(store_many, [(path, writer, rounds) for writer in range(writers)], chunksize=1)
    check(path, writers, rounds)


def store_and_tell(path: Path, told: Connection) -> None:
    for document in range(100_000):
        ScoreCache(path).store("shared", TASK, {document: document / 7})
        told.send(document)


def test_what_a_killed_writer_had_stored_is_there(tmp_path: Path) -> None:
    path, (ours, theirs) = tmp_path / "scores.sqlite", Pipe(duplex=False)
    process = get_context("fork").Process(target=store_and_tell, args=(path, theirs))
    process.start()
    assert ours.recv() == 0  # it has begun
    time.sleep(0.3)
    process.kill()
    process.join()
    theirs.close()
    told = 1
    with suppress(EOFError):
        while ours.recv() == told:
            told += 1
    cache = ScoreCache(path)
    found = cache.load("shared", TASK)
    assert found in ({i: i / 7 for i in range(told)}, {i: i / 7 for i in range(told + 1)})  # the last may be untold
    assert cache.damage() is None


def test_nan_survives_as_nan(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.store("a", TASK, {0: math.nan})
    assert math.isnan(cache.load("a", TASK)[0])


def test_entries_tell_what_is_kept(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.store("a", TASK, {0: 1.0, 1: 0.0}, "models/a")
    cache.store("a", TASK, {2: 1.0}, "the same weights elsewhere")
    cache.store("b", fake_task("other", "other"), {0: 1.0})
    found = {(entry.model, entry.task, entry.metric, entry.count) for entry in cache.entries()}
    assert found == {("models/a", "fake", "acc", 3), ("", "other", "acc", 1)}
    assert all(entry.nbytes > 0 and abs(entry.used - time.time()) < 60 for entry in cache.entries())


def test_what_is_removed_is_gone_and_the_rest_stays(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    for number in range(50):
        cache.store(str(number), TASK, {i: math.sin(number * i) for i in range(200)}, f"model {number}")
    size = cache.path.stat().st_size
    cache.remove([entry for entry in cache.entries() if entry.model != "model 7"])
    assert cache.load("8", TASK) == {}
    assert cache.load("7", TASK) == {i: math.sin(7 * i) for i in range(200)}
    assert cache.path.stat().st_size < size / 5


def test_use_is_remembered_to_the_day(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.store("a", TASK, {0: 1.0})
    cache.store("b", TASK, {0: 1.0})
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE results SET used = 0")
    cache.load("a", TASK)
    assert [entry.used > 0 for entry in cache.entries()] == [False, True]
    assert cache.entries()[1].key == _key("a", TASK)


def test_what_may_only_be_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a cache that a colleague lends; that it was used cannot be noted there."""
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.store("a", TASK, {0: 1.0})
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE results SET used = 0")
        connection.execute("CREATE TRIGGER refuse BEFORE UPDATE ON results BEGIN SELECT RAISE(ABORT, 'no'); END")
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode, **more: mode & os.W_OK == 0 and access(path, mode, **more))
    assert ScoreCache(cache.path).load("a", TASK) == {0: 1.0}


def test_problems_are_found(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    for identity, results in {
        "sound": {0: 1.0},
        "nan": {0: 1.0, 5: math.inf},
        "cut": {0: 1.0},
        "few": {0: 1.0},
    }.items():
        cache.store(identity, TASK, results, identity)
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE results SET documents = substr(documents, 1, 5) WHERE model = 'cut'")
        connection.execute("UPDATE results SET count = 9 WHERE model = 'few'")
    problems = {entry.model: cache.problem(entry) or "" for entry in cache.entries()}
    assert problems["sound"] == ""
    assert "on documents 5" in problems["nan"]
    assert "cannot be read" in problems["cut"]
    assert "9 documents were stored, 1 are there" in problems["few"]
    with pytest.warns(KinshipWarning, match="cannot be read"):
        assert cache.load("cut", TASK) == {}


def test_other_files_are_refused(tmp_path: Path) -> None:
    text, other, newer = tmp_path / "notes.txt", tmp_path / "other.sqlite", tmp_path / "newer.sqlite"
    text.write_text("no database at all, but long enough to look like one to a reader of headers\n" * 20)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE results (key TEXT PRIMARY KEY, documents BLOB)")
    with sqlite3.connect(newer) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    for path, message in {
        text: "is no score cache",
        other: "is no score cache",
        newer: f"version {VERSION + 1}",
    }.items():
        before = path.read_bytes()
        with pytest.raises(CacheError, match=message):
            ScoreCache(path)
        assert path.read_bytes() == before
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="cannot be made"):
        ScoreCache(tmp_path / "file" / "scores.sqlite")


def test_the_users_cache_is_where_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINSHIP_CACHE", str(tmp_path / "mine"))
    assert default_path() == tmp_path / "mine" / "scores.sqlite"
    chosen = open_cache(None)
    assert chosen is not None
    assert chosen.path == tmp_path / "mine" / "scores.sqlite"
    monkeypatch.setenv("KINSHIP_CACHE", "off")
    assert open_cache(None) is None
    asked_for = open_cache(tmp_path / "asked.sqlite")
    assert asked_for is not None
    assert asked_for.path == tmp_path / "asked.sqlite"
    monkeypatch.delenv("KINSHIP_CACHE")
    assert str(default_path()).endswith("model-kinship/scores.sqlite")


def test_results_are_those_of_their_own_key(tmp_path: Path) -> None:
    """A flipped bit in an index leads from one row to another."""
    cache = ScoreCache(tmp_path / "scores.sqlite")
    for number, identity in enumerate("ab"):
        cache.store(identity, TASK, {0: float(number)}, identity)
    with sqlite3.connect(cache.path) as connection:
        (other,) = connection.execute("SELECT documents FROM results WHERE model = 'b'").fetchone()
        connection.execute("UPDATE results SET documents = ? WHERE model = 'a'", (other,))
    with pytest.warns(KinshipWarning, match="found out anew"):
        assert cache.load("a", TASK) == {}
    with pytest.warns(KinshipWarning, match="found out anew"):
        cache.store("a", TASK, {1: 5.0})
    assert cache.load("a", TASK) == {1: 5.0}
    assert cache.load("b", TASK) == {0: 1.0}


def test_a_damaged_cache_is_set_aside_and_begun_anew(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.store("a", TASK, {0: 1.0})
    content = bytearray(cache.path.read_bytes())
    content[4096:] = b"?" * (len(content) - 4096)
    cache.path.write_bytes(content)
    with pytest.warns(KinshipWarning, match="set aside as scores.sqlite.damaged") as told:
        assert cache.load("a", TASK) == {}
    assert len(told) == 1
    cache.store("a", TASK, {0: 2.0})
    assert cache.load("a", TASK) == {0: 2.0}
    (aside,) = tmp_path.glob("*.damaged-*")
    assert aside.read_bytes() == content


def test_a_cache_of_before_checksums_keeps_its_results(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.store("a", TASK, {0: 1.0, 3: 0.25})
    with sqlite3.connect(cache.path) as connection:
        connection.execute(f"UPDATE results SET documents = substr(documents, {SEAL + 1})")
        connection.execute("PRAGMA user_version = 2")
    assert ScoreCache(cache.path).load("a", TASK) == {0: 1.0, 3: 0.25}
    assert ScoreCache(cache.path).load("a", TASK) == {0: 1.0, 3: 0.25}
