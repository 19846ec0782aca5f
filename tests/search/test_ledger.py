import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from kinship.errors import LedgerError
from kinship.gram import GramTable
from merging.span import Genome
from search.ledger import LEDGER_NAME, Ledger, RunFacts, StoredChild
from search.records import Failed, Record, Summary

ROWS, NAMES = ("base", "a", "b"), ("x.weight", "y.weight")
RNG = np.random.default_rng(0)
FACTS = RunFacts(
    {"base": "models/base", "founders": {"a": "models/a", "b": "models/b"}, "seed": 3},
    {"base": "00", "a": "aa", "b": "bb"},
    GramTable(ROWS, NAMES, RNG.random(2), RNG.random((2, 3)), RNG.random((2, 3, 3))),
    {"one": {"metric": "acc", "digest": "d1"}},
    {"device": "cpu", "torch": "2"},
    40,
)
RESULTS = {"one": {0: 0.1, 4: -1 / 3, 7: 1e-17}, "another": {2: 1.0}}
SUMMARY = Summary(-1 / 3, 0.1, True, {"value": -1 / 3, "tasks": {"one": {"value": 0.25}}})


def record(id: str, **facts: Any) -> Record:
    defaults: dict[str, Any] = {"generation": 1, "role": "greedy", "parents": ("a", "base"), "recipe": {}, "batch": 2}
    return Record(**({"id": id, "identity": id} | defaults | facts))


RECORDS = [
    record("base", generation=0, role="base", parents=()),
    record("a", generation=0, role="founder", parents=()),
    record("1-1", recipe={"merge_method": "linear", "parameters": {"scale": [0.5, 1.5]}}, kinship=-1 / 3),
    record("1-10", role="exploration", parents=("a", "1-1", "base"), twin="1-1"),
    record("1-11", identity=None, error="no such thing"),
]
GENOMES = {r.id: Genome(RNG.standard_normal((2, 3 + len(r.id) % 2))) for r in RECORDS if r.identity}
FAILURES = {"1-11": Failed("merging", "raised", "no such thing", "Traceback ...", 1)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / LEDGER_NAME


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as ledger:
        ledger.start(FACTS)
        yield ledger


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    ledger.add(RECORDS, GENOMES, FAILURES)
    return ledger


def read(path: Path) -> tuple[RunFacts | None, list[Record], str | None]:
    """All that a fresh reader finds."""
    with Ledger(path) as ledger:
        return ledger.facts(), ledger.records(), ledger.stopped()


def test_a_new_ledger_holds_nothing(path: Path) -> None:
    assert read(path) == (None, [], None)
    with Ledger(path) as ledger:
        assert (ledger.diary(), ledger.seconds(), ledger.stored(), ledger.failures()) == ([], 0.0, [], {})


def test_facts_come_back(ledger: Ledger, path: Path) -> None:
    found = read(path)[0]
    assert found is not None
    assert replace(found, table=FACTS.table) == FACTS
    assert (found.table.rows, found.table.names) == (ROWS, NAMES)
    for key in ("counts", "sums", "grams"):
        assert np.array_equal(getattr(found.table, key), getattr(FACTS.table, key))


def test_individuals_come_back_in_their_order(ledger: Ledger, path: Path) -> None:
    ledger.add(RECORDS[:2], {})
    ledger.add(RECORDS[2:], {}, FAILURES)
    assert read(path)[1] == RECORDS


def test_genomes_come_back_when_asked_for(filled: Ledger) -> None:
    found = filled.genomes(["1-10", "nobody", "1-11", "a"])
    assert list(found) == ["1-10", "a"]
    for id, genome in found.items():
        assert np.array_equal(genome.coefficients, GENOMES[id].coefficients)


def test_more_genomes_than_a_query_takes(ledger: Ledger) -> None:
    many = [record(f"1-{i}", parents=()) for i in range(1200)]
    ledger.add(many, {r.id: GENOMES["a"] for r in many})
    assert list(ledger.genomes(r.id for r in reversed(many))) == [r.id for r in reversed(many)]


def test_stored_children_extend_the_table(filled: Ledger, path: Path) -> None:
    wider = FACTS.table.extended("1-1", RNG.random(2), RNG.random((2, 4)))
    row = {"sums": wider.sums[:, -1], "products": wider.grams[:, -1, :]}
    filled.add([record("1-12")], {}, stored=[StoredChild("1-1", "digest", row)])
    with Ledger(path) as again:
        table = again.table()
        assert [(child.id, child.digest) for child in again.stored()] == [("1-1", "digest")]
    assert table.rows == (*ROWS, "1-1")
    assert np.array_equal(table.grams, wider.grams)
    assert np.array_equal(table.sums, wider.sums)


def test_results_come_back_exactly_block_after_block(filled: Ledger, path: Path) -> None:
    filled.record_results("a", "search", RESULTS)
    filled.record_results("a", "search", {"one": {5: 0.5}})
    filled.record_results("a", "held_out", {"one": {6: 1.0}})
    with Ledger(path) as again:
        assert again.results("a", "search") == {"one": {**RESULTS["one"], 5: 0.5}, "another": {2: 1.0}}
        assert again.results("1-1", "search") == {}
        assert again.results("a", "held_out") == {"one": {6: 1.0}}


def test_scores_come_back(filled: Ledger, path: Path) -> None:
    partial = Summary(0.5, None, False, {"tasks": {}})
    filled.record_scores("search", {"a": SUMMARY, "1-1": partial})
    filled.record_scores("held_out", {"a": partial})
    found = {r.id: r for r in read(path)[1]}
    assert found["a"].scores == {"search": SUMMARY, "held_out": partial}
    assert found["1-1"].scores == {"search": partial}
    assert (found["a"].fitness, found["1-10"].fitness) == (-1 / 3, None)
    assert [found[id].done for id in ("a", "1-1", "1-10", "1-11")] == [True, True, False, True]
    assert [found[id].ranks for id in ("base", "a", "1-1")] == [False, True, False]


def test_failures_and_reasons_come_back(filled: Ledger, path: Path) -> None:
    lost = Failed("search", "lost", "it died", "last lines", 3)
    filled.record_failure("1-1", lost)
    filled.set_stopped("reached 3 generations")
    filled.set_config(FACTS.config | {"seed": 4})
    facts, individuals, stopped = read(path)
    assert stopped == "reached 3 generations"
    assert [r.error for r in individuals] == [None, None, "it died", None, "no such thing"]
    assert filled.failures() == {"1-1": [lost], "1-11": [FAILURES["1-11"]]}
    assert facts is not None
    assert facts.config["seed"] == 4
    filled.set_stopped(None)
    assert read(path)[2] is None


def test_the_diary_counts_the_seconds_of_all_sessions(ledger: Ledger, path: Path) -> None:
    ledger.note("started", {}, 0.5)
    ledger.note("generation", {"generation": 1}, 7.25)
    with Ledger(path) as again:
        assert [(entry.name, entry.facts) for entry in again.diary()] == [
            ("started", {}), ("generation", {"generation": 1})
        ]  # fmt: skip
        assert again.seconds() == 7.25


def test_a_batch_is_added_whole_or_not_at_all(ledger: Ledger, path: Path) -> None:
    ledger.add(RECORDS[:2], {})
    with pytest.raises(IntegrityError):
        ledger.add([record("new"), record("newer"), record("a")], {})
    assert [r.id for r in read(path)[1]] == ["base", "a"]
    ledger.add([record("new")], {})
    assert [r.id for r in read(path)[1]] == ["base", "a", "new"]


def test_a_score_is_recorded_once_and_for_somebody(filled: Ledger) -> None:
    filled.record_scores("search", {"a": SUMMARY})
    for id in ("a", "nobody"):
        with pytest.raises(IntegrityError):
            filled.record_scores("search", {id: SUMMARY})
    with pytest.raises(IntegrityError):
        filled.record_results("nobody", "search", RESULTS)


def test_every_commit_waits_for_the_disk(ledger: Ledger) -> None:
    seen = []

    @event.listens_for(ledger._engine, "commit")
    def ask(connection: Connection) -> None:
        cursor = connection.connection.cursor()
        seen.append(tuple(cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")))

    ledger.add(RECORDS, GENOMES, FAILURES)
    ledger.record_results("a", "search", RESULTS)
    ledger.record_scores("search", {"a": SUMMARY})
    ledger.record_failure("1-1", Failed("search", "raised", "no"))
    ledger.note("paused", {}, 1.0)
    ledger.set_stopped("done")
    assert seen == [(2, "wal")] * 6  # 2 is FULL


def test_a_file_that_is_no_ledger_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database, " * 400)
    with pytest.raises(LedgerError, match=r"ledger\.sqlite is not a readable ledger"):
        Ledger(path)


def test_a_damaged_ledger_is_refused(filled: Ledger, path: Path) -> None:
    filled.close()
    content = path.read_bytes()
    path.write_bytes(b"\xff" * 100 + content[100:])
    with pytest.raises(LedgerError, match="not a readable ledger"):
        Ledger(path)


def test_another_version_is_refused_and_left_as_it_is(ledger: Ledger, path: Path) -> None:
    ledger.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE run SET schema_version = 99")
    connection.close()
    with pytest.raises(LedgerError, match="ledger version 99") as raised:
        Ledger(path)
    assert raised.value.hint


def test_a_ledger_of_the_first_version_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE run (id INTEGER PRIMARY KEY, schema_version INTEGER, config TEXT)")
        connection.execute("INSERT INTO run VALUES (1, 1, '{}')")
    connection.close()
    with pytest.raises(LedgerError, match="ledger version 1"):
        Ledger(path)
    with sqlite3.connect(path) as connection:
        assert [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")] == ["run"]
    connection.close()


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="holds no run"):
        Ledger.of_run(tmp_path)
    assert list(tmp_path.iterdir()) == []
