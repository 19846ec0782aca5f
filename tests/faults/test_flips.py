"""A byte of a ledger, a score cache, the memory of Gram tables or an index is another one: never another answer."""

import random
import sqlite3
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evaluators.base import Task
from evaluators.cache import ScoreCache
from kinship.errors import KinshipError, LedgerError
from kinship.measures.alignment import Alignment
from kinship.measures.gram import GramTable
from kinship.measures.gram_memory import recall_table, remember_table
from kinship.sketches.index import SketchIndex
from kinship.sketches.sketch import Key, Sketch
from search.history.archive import archive
from search.ledger.ledger import Ledger
from service.answers.checks import check_run
from service.answers.runs import list_runs
from tests.search.runs import put_small_run

FEW, MANY = 15, 1000
COUNTS = [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.soak)]
Ask = Callable[[], Any]


def flips(file: Path, ask: Ask, allowed: Callable[[Any], bool], count: int, seed: int) -> Counter[str]:
    """Ask after each of ``count`` flips of a byte of ``file``; what is answered must be ``allowed``, or an error."""
    draw, sound = random.Random(seed), file.read_bytes()
    seen: Counter[str] = Counter()
    for _ in range(count):
        content = bytearray(sound)
        place = draw.randrange(len(content))
        content[place] ^= draw.randrange(1, 256)
        restore(file, bytes(content))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = ask()
        except KinshipError as error:
            seen["typed" if error.hint else "typed, without a hint"] += 1
            continue
        assert allowed(found), f"byte {place} ^ {sound[place] ^ content[place]}: {found}"
        seen["right"] += 1
    restore(file, sound)
    assert ask() is not None
    assert "typed, without a hint" not in seen
    return seen


def restore(file: Path, content: bytes) -> None:
    for leftover in file.parent.glob(f"{file.name}*"):
        leftover.unlink()
    file.write_bytes(content)


@pytest.mark.parametrize("count", COUNTS)
def test_a_ledger(tmp_path: Path, count: int) -> None:
    file = put_small_run(tmp_path)

    def ask() -> Any:
        with Ledger(file) as ledger:
            return archive(ledger), ledger.table().grams.tobytes(), ledger.diary()

    right = ask()
    seen = flips(file, ask, lambda found: found == right, count, 1)
    assert seen["typed"] > count / 10  # most of the file is room for more


@pytest.mark.parametrize("count", [pytest.param(5, id="few"), pytest.param(300, id="many", marks=pytest.mark.soak)])
def test_a_damaged_ledger_is_looked_into(tmp_path: Path, count: int) -> None:
    """`runs verify` says no or is right; `runs list` shows the others."""
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    put_small_run(tmp_path / "good")
    file = put_small_run(tmp_path / "bad")
    (sound,) = list_runs(str(tmp_path / "good")).runs

    def ask() -> Any:
        told: list[Path] = []

        def unreadable(folder: Path, error: LedgerError) -> None:
            assert str(file) in error.message
            told.append(folder)

        listed = list_runs(str(tmp_path), unreadable).runs
        assert sound in listed
        assert told == [file.parent] or len(listed) == 2
        return check_run(str(file.parent)).ok, len(listed)

    flips(file, ask, lambda found: found in {(True, 2), (False, 1)}, count, 2)


@pytest.mark.parametrize("count", COUNTS)
def test_a_score_cache(tmp_path: Path, count: int) -> None:
    tasks = [Task(name, "acc", f"{name}/1", {"search": range(5)}) for name in ("one", "two")]
    models = [f"model-{number}" for number in range(20)]
    file, draw = tmp_path / "scores.sqlite", random.Random(3)
    cache = ScoreCache(file)
    for model in models:
        cache.store_all(model, [(task, {index: draw.random() for index in range(40)}) for task in tasks], model)

    def ask() -> Any:
        cache = ScoreCache(file)
        return [cache.load(model, task) for model in models for task in tasks]

    right = ask()
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA journal_mode = DELETE")

    def allowed(found: Any) -> bool:
        return all(one in ({}, whole) for one, whole in zip(found, right, strict=True))

    assert flips(file, ask, allowed, count, 3)["typed"] < count / 20  # it mends itself


@pytest.mark.parametrize("count", COUNTS)
def test_the_memory_of_gram_tables(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINSHIP_CACHE", str(tmp_path))
    names = tuple(f"layers.{index}.weight" for index in range(8))
    sets: list[list[Any]] = [[model(f"{group}{index}") for index in range(4)] for group in "abc"]
    draw = np.random.default_rng(4)
    for base, *models in sets:
        rows = tuple(each.id for each in (base, *models))
        grams = draw.standard_normal((8, 4, 4))
        table = GramTable(rows, names, np.full(8, 9), draw.standard_normal((8, 4)), grams, {})
        remember_table(table, base, models, exact=False)

    def ask() -> Any:
        found = [recall_table(base, models, Alignment(names[2:]), exact=False) for base, *models in sets]
        return [table and (table.rows, table.names, table.grams.tobytes(), table.sums.tobytes()) for table in found]

    right = ask()
    assert None not in right

    def allowed(found: Any) -> bool:
        return all(one in (None, whole) for one, whole in zip(found, right, strict=True))

    assert flips(tmp_path / "kinship.sqlite", ask, allowed, count, 4)["typed"] == 0


def model(name: str) -> Any:
    return SimpleNamespace(id=name, fingerprint=f"state of {name}", changed=lambda: False)


@pytest.mark.parametrize("count", COUNTS)
def test_an_index_of_sketches(tmp_path: Path, count: int) -> None:
    file, draw = tmp_path / "index.sqlite", np.random.default_rng(5)
    keys = tuple(Key(f"layers.{index}.weight", 4096) for index in range(6))
    index, sketches = SketchIndex(file), []
    for number in range(12):
        sketches.append(Sketch(keys, draw.standard_normal((6, 32)).astype(np.float32), draw.random(6)))
        index.add(f"model-{number}", sketches[-1], state=f"state-{number}")

    def ask() -> Any:
        index = SketchIndex(file)
        kept = [index.recall(f"model-{number}", f"state-{number}") for number in range(12)]
        return index.ids, index.query(sketches[3]), [one and (one.keys, one.sums.tobytes()) for one in kept]

    ids, relatives, kept = ask()

    def allowed(found: Any) -> bool:
        return found[:2] == (ids, relatives) and all(
            one in (None, whole) for one, whole in zip(found[2], kept, strict=True)
        )

    assert flips(file, ask, allowed, count, 5)["typed"] > count / 10
