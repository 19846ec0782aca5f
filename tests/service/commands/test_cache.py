import json
import math
import sqlite3
import time
from pathlib import Path

import pytest

from evaluators.cache import ScoreCache
from tests.evaluators.fakes import fake_task
from tests.service.conftest import Kinship

DAY = 86_400


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Four entries of 300 documents, last used 100, 50, 10 and 0 days ago."""
    path = tmp_path / "scores.sqlite"
    kept = ScoreCache(path)
    ages = {("base", "arc"): 100, ("2-1", "arc"): 50, ("2-2", "arc"): 10, ("base", "piqa"): 0}
    for model, task in ages:
        values = {index: math.sin(index * len(task)) for index in range(300)}
        kept.store(model, fake_task(task, f"digest of {task}"), values, model)
    with sqlite3.connect(path) as connection:
        for (model, task), age in ages.items():
            facts = (time.time() - age * DAY, model, task)
            connection.execute("UPDATE results SET used = ? WHERE model = ? AND task = ?", facts)
    return path


def left(path: Path) -> list[tuple[str, str]]:
    return [(entry.model, entry.task) for entry in ScoreCache(path).entries()]


def test_list_and_size(kinship: Kinship, cache: Path) -> None:
    listed = json.loads(kinship("cache", "list", "--cache", cache, "--json").out)
    assert [(entry["model"], entry["task"]) for entry in listed["entries"]] == left(cache)[::-1]
    assert all(entry["documents"] == 300 and entry["metric"] == "acc" for entry in listed["entries"])
    sized = json.loads(kinship("cache", "size", "--cache", cache, "--json").out)
    assert sized["bytes"] == cache.stat().st_size
    assert (sized["entries"], sized["documents"]) == (4, 1200)
    assert "piqa" in kinship("cache", "list", "--cache", cache).out
    assert "1,200 results in 4 entries" in kinship("cache", "size", "--cache", cache).out


@pytest.mark.parametrize(
    ("options", "removed"),
    [
        (["--older-than", "30d"], {("base", "arc"), ("2-1", "arc")}),
        (["--model", "2-*"], {("2-1", "arc"), ("2-2", "arc")}),
        (["--task", "piqa"], {("base", "piqa")}),
        (["--model", "base", "--older-than", "8w"], {("base", "arc")}),
        (["--broken"], set()),
        (["--max-size", "1GB"], set()),
    ],
)
def test_prune(kinship: Kinship, cache: Path, options: list[str], removed: set[tuple[str, str]]) -> None:
    before = left(cache)
    dry = json.loads(kinship("cache", "prune", "--cache", cache, *options, "--dry-run", "--json").out)
    assert left(cache) == before
    found = json.loads(kinship("cache", "prune", "--cache", cache, *options, "--json").out)
    assert found["removed"] == dry["removed"]
    assert {(entry["model"], entry["task"]) for entry in found["removed"]} == removed
    assert left(cache) == [entry for entry in before if entry not in removed]
    assert found["kept"] == 4 - len(removed)


def test_prune_to_a_size_drops_the_least_recently_used(kinship: Kinship, cache: Path) -> None:
    sizes = [entry.nbytes for entry in ScoreCache(cache).entries()]
    outcome = kinship("cache", "prune", "--cache", cache, "--max-size", f"{sum(sizes[2:])}B")
    assert outcome.out.strip() == "2 entries removed, 2 kept."
    assert left(cache) == [("2-2", "arc"), ("base", "piqa")]


def test_verify_finds_what_prune_removes(kinship: Kinship, cache: Path) -> None:
    assert kinship("cache", "verify", "--cache", cache).out.strip() == "All 4 entries are sound."
    with sqlite3.connect(cache) as connection:
        connection.execute("UPDATE results SET documents = x'00' WHERE model = '2-1'")
    found = kinship("cache", "verify", "--cache", cache, "--json")
    assert found.code == 1
    verdict = json.loads(found.out)
    assert verdict["ok"] is False
    assert [entry["model"] for entry in verdict["problems"]] == ["2-1"]
    assert "prune --broken" in kinship("cache", "verify", "--cache", cache).out
    assert kinship("cache", "prune", "--cache", cache, "--broken").code == 0
    assert kinship("cache", "verify", "--cache", cache).code == 0
    assert len(left(cache)) == 3


def test_a_damaged_file_is_told(kinship: Kinship, cache: Path) -> None:
    content = bytearray(cache.read_bytes())
    content[5000:9000] = b"x" * 4000
    cache.write_bytes(content)
    assert kinship("cache", "verify", "--cache", cache).code == 1
    assert kinship("cache", "verify", "--cache", cache, "--json").code == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["prune"], "Nothing says what to remove"),
        (["prune", "--older-than", "soon"], "'soon' is no number with a unit"),
        (["prune", "--max-size", "3 days"], "'3 days' is no number with a unit"),
    ],
)
def test_what_makes_no_sense(kinship: Kinship, cache: Path, options: list[str], message: str) -> None:
    outcome = kinship("cache", *options, "--cache", cache)
    assert outcome.code == 1
    assert message in outcome.err
    assert len(left(cache)) == 4


def test_no_cache_is_made_by_looking_for_it(kinship: Kinship, tmp_path: Path) -> None:
    outcome = kinship("cache", "list", "--cache", tmp_path / "none.sqlite")
    assert outcome.code == 1
    assert "no score cache" in outcome.err
    assert not (tmp_path / "none.sqlite").exists()
    assert "KINSHIP_CACHE=off" in kinship("cache", "size").err  # as the tests run
