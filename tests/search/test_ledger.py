import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from evaluators.scores import Score, TaskScore
from kinship.errors import LedgerError
from kinship.gram import GramTable
from merging.span import Genome
from search.ledger import Ledger, Record, RunFacts

ROWS, NAMES = ("base", "a", "b"), ("x.weight", "y.weight")
RNG = np.random.default_rng(0)
FACTS = RunFacts(
    {"base": "models/base", "founders": {"a": "models/a", "b": "models/b"}, "seed": 3},
    {"base": "00", "a": "aa", "b": "bb"},
    GramTable(ROWS, NAMES, RNG.random(2), RNG.random((2, 3)), RNG.random((2, 3, 3))),
)
SCORE = Score((TaskScore("one", (0, 4, 7), (0.1, -1 / 3, 1e-17)), TaskScore("another", (2,), (1.0,))))


def record(id: str, **facts: Any) -> Record:
    genome = Genome(np.random.default_rng(len(id)).standard_normal((2, 3)))
    defaults: dict[str, Any] = {"generation": 1, "role": "greedy", "parents": ("a", "b"), "recipe": {}, "identity": id}
    return Record(id=id, genome=genome, **(defaults | facts))


RECORDS = [
    record("base", generation=0, role="base", parents=()),
    record("a", generation=0, role="founder", parents=()),
    record("1-1", recipe={"merge_method": "linear", "parameters": {"scale": [0.5, 1.5]}}, kinship=-1 / 3),
    record("1-10", role="exploration", kinship=None),
]


def facts_of(record: Record) -> dict[str, Any]:
    return vars(record) | {"genome": record.genome.to_bytes()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = Ledger(path)
    ledger.start(FACTS)
    yield ledger
    ledger.close()


def read(path: Path) -> tuple[RunFacts | None, list[dict[str, Any]], str | None]:
    """All that a fresh reader finds."""
    ledger = Ledger(path)
    try:
        return ledger.facts(), [facts_of(record) for record in ledger.records()], ledger.stopped()
    finally:
        ledger.close()


def test_a_new_ledger_holds_nothing(path: Path) -> None:
    assert read(path) == (None, [], None)


def test_facts_come_back(ledger: Ledger, path: Path) -> None:
    found = read(path)[0]
    assert found is not None
    assert (found.config, found.digests) == (FACTS.config, FACTS.digests)
    assert (found.table.rows, found.table.names) == (ROWS, NAMES)
    for key in ("counts", "sums", "grams"):
        assert np.array_equal(getattr(found.table, key), getattr(FACTS.table, key))


def test_individuals_come_back_in_their_order(ledger: Ledger, path: Path) -> None:
    ledger.add(RECORDS[:2])
    ledger.add(RECORDS[2:])
    assert read(path)[1] == [facts_of(record) for record in RECORDS]


def test_scores_come_back_exactly(ledger: Ledger, path: Path) -> None:
    ledger.add(RECORDS)
    ledger.record_score("1-1", "search", SCORE)
    ledger.record_score("1-1", "held_out", Score((TaskScore("one", (5,), (0.25,)),)))
    ledger.record_score("a", "search", Score((TaskScore("one", (0,), (0.5,)),)))
    found = {facts["id"]: facts["scores"] for facts in read(path)[1]}
    assert found["1-1"]["search"] == SCORE
    assert found["1-1"]["held_out"].value == 0.25
    assert found["a"]["search"].value == 0.5
    assert found["1-10"] == {}
    by_id = {record.id: record for record in ledger.records()}
    assert by_id["1-1"].fitness == SCORE.value
    assert by_id["1-10"].fitness is None
    assert [by_id[id].done for id in ("1-1", "1-10")] == [True, False]


def test_failures_and_reasons_come_back(ledger: Ledger, path: Path) -> None:
    ledger.add(RECORDS)
    ledger.record_failure("1-10", "it gives NaN")
    ledger.set_stopped("reached 3 generations")
    ledger.set_config(FACTS.config | {"seed": 4})
    facts, individuals, stopped = read(path)
    assert stopped == "reached 3 generations"
    assert [facts["error"] for facts in individuals] == [None, None, None, "it gives NaN"]
    assert facts is not None
    assert facts.config["seed"] == 4
    ledger.set_stopped(None)
    assert read(path)[2] is None


def test_a_batch_is_added_whole_or_not_at_all(ledger: Ledger, path: Path) -> None:
    ledger.add(RECORDS[:2])
    with pytest.raises(IntegrityError):
        ledger.add([record("new"), record("newer"), record("a")])
    assert [facts["id"] for facts in read(path)[1]] == ["base", "a"]
    ledger.add([record("new")])
    assert [facts["id"] for facts in read(path)[1]] == ["base", "a", "new"]


def test_a_score_is_recorded_once_and_for_somebody(ledger: Ledger) -> None:
    ledger.add(RECORDS)
    ledger.record_score("a", "search", SCORE)
    with pytest.raises(IntegrityError):
        ledger.record_score("a", "search", SCORE)
    with pytest.raises(IntegrityError):
        ledger.record_score("nobody", "search", SCORE)


def test_every_commit_waits_for_the_disk(ledger: Ledger) -> None:
    seen = []

    @event.listens_for(ledger._engine, "commit")
    def ask(connection: Connection) -> None:
        seen.append(connection.connection.cursor().execute("PRAGMA synchronous").fetchone()[0])

    ledger.add(RECORDS)
    ledger.record_score("a", "search", SCORE)
    ledger.record_failure("1-1", "no")
    ledger.set_stopped("done")
    assert seen == [2, 2, 2, 2]  # FULL


def test_a_file_that_is_no_ledger_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database, " * 400)
    with pytest.raises(LedgerError, match=r"ledger\.sqlite is not a readable ledger"):
        Ledger(path)


def test_a_damaged_ledger_is_refused(ledger: Ledger, path: Path) -> None:
    ledger.add(RECORDS)
    ledger.close()
    content = path.read_bytes()
    path.write_bytes(b"\xff" * 100 + content[100:])
    with pytest.raises(LedgerError, match="not a readable ledger"):
        Ledger(path)


def test_another_version_is_refused(ledger: Ledger, path: Path) -> None:
    ledger.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE run SET schema_version = 99")
    connection.close()
    with pytest.raises(LedgerError, match="ledger version 99") as raised:
        Ledger(path)
    assert raised.value.hint
