import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from kinship.errors import LedgerError
from kinship.measures.gram import GramTable
from merging.offspring.span import Genome
from search.config import RunConfig
from search.ledger.database import runs_in
from search.ledger.ledger import Ledger, RunFacts
from search.ledger.location import LEDGER_NAME, LedgerLocation
from search.ledger.records import Failed, Record, StoredChild, Summary
from search.ledger.tables import VERSION
from tests.search.postgres import Server

ROWS, NAMES = ("base", "a", "b"), ("x.weight", "y.weight")
RNG = np.random.default_rng(0)
FACTS = RunFacts(
    RunConfig.model_validate({"base": "m/base", "founders": ["m/a", "m/b"], "evaluate": {"tasks": ["one"]}, "seed": 3}),
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


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres"))])
def place(request: pytest.FixtureRequest, path: Path) -> LedgerLocation:
    """Where a ledger may be: every test that asks for it is run over both."""
    if request.param == "sqlite":
        return LedgerLocation.of_file(path)
    return LedgerLocation.parse(request.getfixturevalue("postgres").new_database(), "mine")


@pytest.fixture
def ledger(place: LedgerLocation) -> Iterator[Ledger]:
    with Ledger(place) as ledger:
        ledger.start(FACTS)
        yield ledger


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    ledger.add(RECORDS, GENOMES, FAILURES)
    return ledger


def read(place: LedgerLocation) -> tuple[RunFacts | None, list[Record], str | None]:
    """All that a fresh reader finds."""
    with Ledger(place) as ledger:
        return ledger.facts(), ledger.records(), ledger.stopped()


def test_a_new_ledger_holds_nothing(place: LedgerLocation) -> None:
    assert read(place) == (None, [], None)
    with Ledger(place) as ledger:
        assert (ledger.diary(), ledger.seconds(), ledger.stored(), ledger.failures()) == ([], 0.0, [], {})


def test_facts_come_back(ledger: Ledger, place: LedgerLocation) -> None:
    found = read(place)[0]
    assert found is not None
    assert replace(found, table=FACTS.table) == FACTS
    assert (found.table.rows, found.table.names) == (ROWS, NAMES)
    for key in ("counts", "sums", "grams"):
        assert np.array_equal(getattr(found.table, key), getattr(FACTS.table, key))


def test_individuals_come_back_in_their_order(ledger: Ledger, place: LedgerLocation) -> None:
    ledger.add(RECORDS[:2], {})
    ledger.add(RECORDS[2:], {}, FAILURES)
    assert read(place)[1] == RECORDS


def test_genomes_come_back_when_asked_for(filled: Ledger) -> None:
    found = filled.genomes(["1-10", "nobody", "1-11", "a"])
    assert list(found) == ["1-10", "a"]
    for id, genome in found.items():
        assert np.array_equal(genome.coefficients, GENOMES[id].coefficients)


def test_more_genomes_than_a_query_takes(ledger: Ledger) -> None:
    many = [record(f"1-{i}", parents=()) for i in range(1200)]
    ledger.add(many, {r.id: GENOMES["a"] for r in many})
    assert list(ledger.genomes(r.id for r in reversed(many))) == [r.id for r in reversed(many)]


def test_stored_children_extend_the_table(filled: Ledger, place: LedgerLocation) -> None:
    wider = FACTS.table.extended("1-1", RNG.random(2), RNG.random((2, 4)))
    row = {"sums": wider.sums[:, -1], "products": wider.grams[:, -1, :]}
    filled.add([record("1-12")], {}, stored=[StoredChild("1-1", "digest", row)])
    with Ledger(place) as again:
        table = again.table()
        assert [(child.id, child.digest) for child in again.stored()] == [("1-1", "digest")]
    assert table.rows == (*ROWS, "1-1")
    assert np.array_equal(table.grams, wider.grams)
    assert np.array_equal(table.sums, wider.sums)


def test_results_come_back_exactly_block_after_block(filled: Ledger, place: LedgerLocation) -> None:
    filled.record_results("a", "search", RESULTS)
    filled.record_results("a", "search", {"one": {5: 0.5}})
    filled.record_results("a", "held_out", {"one": {6: 1.0}})
    with Ledger(place) as again:
        assert again.results("a", "search") == {"one": {**RESULTS["one"], 5: 0.5}, "another": {2: 1.0}}
        assert again.results("1-1", "search") == {}
        assert again.results("a", "held_out") == {"one": {6: 1.0}}


def test_scores_come_back(filled: Ledger, place: LedgerLocation) -> None:
    partial = Summary(0.5, None, False, {"tasks": {}})
    filled.record_scores("search", {"a": SUMMARY, "1-1": partial})
    filled.record_scores("held_out", {"a": partial})
    found = {r.id: r for r in read(place)[1]}
    assert found["a"].scores == {"search": SUMMARY, "held_out": partial}
    assert found["1-1"].scores == {"search": partial}
    assert (found["a"].fitness, found["1-10"].fitness) == (-1 / 3, None)
    assert [found[id].done for id in ("a", "1-1", "1-10", "1-11")] == [True, True, False, True]
    assert [found[id].ranks for id in ("base", "a", "1-1")] == [False, True, False]


def test_failures_and_reasons_come_back(filled: Ledger, place: LedgerLocation) -> None:
    lost = Failed("search", "lost", "it died", "last lines", 3)
    filled.record_failure("1-1", lost)
    filled.set_stopped("reached 3 generations")
    filled.set_config(FACTS.config.model_copy(update={"seed": 4}))
    facts, individuals, stopped = read(place)
    assert stopped == "reached 3 generations"
    assert [r.error for r in individuals] == [None, None, "it died", None, "no such thing"]
    assert filled.failures() == {"1-1": [lost], "1-11": [FAILURES["1-11"]]}
    assert facts is not None
    assert facts.config.seed == 4
    filled.set_stopped(None)
    assert read(place)[2] is None


def test_the_diary_counts_the_seconds_of_all_sessions(ledger: Ledger, place: LedgerLocation) -> None:
    ledger.note("started", {}, 0.5)
    ledger.note("generation", {"generation": 1}, 7.25)
    with Ledger(place) as again:
        assert [(entry.name, entry.facts) for entry in again.diary()] == [
            ("started", {}), ("generation", {"generation": 1})
        ]  # fmt: skip
        assert again.seconds() == 7.25


def test_a_batch_is_added_whole_or_not_at_all(ledger: Ledger, place: LedgerLocation) -> None:
    ledger.add(RECORDS[:2], {})
    with pytest.raises(IntegrityError):
        ledger.add([record("new"), record("newer"), record("a")], {})
    assert [r.id for r in read(place)[1]] == ["base", "a"]
    ledger.add([record("new")], {})
    assert [r.id for r in read(place)[1]] == ["base", "a", "new"]


def test_a_score_is_recorded_once_and_for_somebody(filled: Ledger) -> None:
    filled.record_scores("search", {"a": SUMMARY})
    for id in ("a", "nobody"):
        with pytest.raises(IntegrityError):
            filled.record_scores("search", {id: SUMMARY})
    with pytest.raises(IntegrityError):
        filled.record_results("nobody", "search", RESULTS)


def test_every_commit_waits_for_the_disk(path: Path) -> None:
    seen = []
    with Ledger(path) as ledger:
        ledger.start(FACTS)

        @event.listens_for(ledger.engine, "commit")
        def ask(connection: Connection) -> None:
            cursor = connection.connection.cursor()
            pragmas = ("synchronous", "journal_mode")
            seen.append(tuple(cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas))

        write_everything(ledger)
    assert seen == [(2, "wal")] * 6  # 2 is FULL


@pytest.mark.xdist_group("postgres")
def test_every_commit_waits_for_the_disk_of_a_server_that_would_not(postgres: Server) -> None:
    import psycopg

    url = postgres.new_database()
    database = LedgerLocation.parse(url, "mine").url.database
    with psycopg.connect(f"host={postgres.folder} user=kinship dbname={database}", autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} SET synchronous_commit TO off")  # type: ignore[arg-type]
    seen = []
    with Ledger(LedgerLocation.parse(url, "mine")) as ledger:
        ledger.start(FACTS)

        @event.listens_for(ledger.engine, "commit")
        def ask(connection: Connection) -> None:
            seen.append(connection.exec_driver_sql("SHOW synchronous_commit").scalar())

        write_everything(ledger)
    assert seen == ["on"] * 6


def write_everything(ledger: Ledger) -> None:
    """Six commits."""
    ledger.add(RECORDS, GENOMES, FAILURES)
    ledger.record_results("a", "search", RESULTS)
    ledger.record_scores("search", {"a": SUMMARY})
    ledger.record_failure("1-1", Failed("search", "raised", "no"))
    ledger.note("paused", {}, 1.0)
    ledger.set_stopped("done")


def test_text_that_not_every_database_can_hold(filled: Ledger) -> None:
    filled.record_failure("1-1", Failed("search", "raised", "a\0b", "\0 \u2026"))
    (failed,) = filled.failures()["1-1"]
    assert (failed.message, failed.traceback) == ("a\ufffdb", "\ufffd \u2026")


def test_runs_of_one_database_know_nothing_of_each_other(place: LedgerLocation) -> None:
    other = replace(place, run="another")
    with Ledger(place) as mine, Ledger(other) as theirs:
        for ledger in (mine, theirs):
            ledger.start(FACTS)
            write_everything(ledger)
        theirs.add([record("2-1", parents=("a",))], {})
        theirs.set_stopped("later")
        assert (len(mine.records()), len(theirs.records())) == (len(RECORDS), len(RECORDS) + 1)
        assert (mine.stopped(), theirs.stopped()) == ("done", "later")
        assert (len(mine.diary()), len(theirs.diary())) == (1, 1)
        assert runs_in(place) == ["another", place.run]
        with pytest.raises(IntegrityError):
            mine.start(FACTS)
        theirs.delete()
        assert theirs.facts() is None
        assert theirs.records() == []
    assert runs_in(place) == [place.run]
    assert read(place)[1] == [*mine_after_everything()]


def mine_after_everything() -> Iterator[Record]:
    for each in RECORDS:
        scores = {"search": SUMMARY} if each.id == "a" else {}
        yield replace(each, scores=scores, error="no" if each.id == "1-1" else each.error)


@pytest.mark.xdist_group("postgres")
def test_a_run_in_a_database_has_one_coordinator(postgres: Server) -> None:
    place = LedgerLocation.parse(postgres.new_database(), "mine")
    with Ledger(place, exclusive=True) as ledger:
        ledger.start(FACTS)
        with pytest.raises(LedgerError, match=r"Another process is running .*#mine"):
            Ledger(place, exclusive=True)
        with Ledger(place) as reader, Ledger(replace(place, run="other"), exclusive=True):
            assert reader.facts() is not None
    Ledger(place, exclusive=True).close()


@pytest.mark.xdist_group("postgres")
def test_a_coordinator_that_lost_its_connection_writes_no_more(postgres: Server) -> None:
    url = postgres.new_database()
    place = LedgerLocation.parse(url, "mine")
    with Ledger(place, exclusive=True) as ledger:
        ledger.start(FACTS)
        with Ledger(place) as other, other.engine.connect() as connection:
            held = connection.execute(text("SELECT pid FROM pg_locks WHERE locktype = 'advisory'")).scalar_one()
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": held})
        with pytest.raises(LedgerError, match="connection was lost") as raised:
            ledger.add(RECORDS, {})
        assert "--resume" in raised.value.hint
        with Ledger(place, exclusive=True) as successor:
            successor.add(RECORDS, {}, FAILURES)
            with pytest.raises(LedgerError, match="Another process"):
                ledger.note("paused", {}, 1.0)
    assert read(place)[1] == RECORDS


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(LedgerError, match="cannot be reached") as raised:
        Ledger(LedgerLocation.parse(f"postgresql://ann:secret@/nothing?host={tmp_path}#first"))
    assert "secret" not in raised.value.message


def test_a_file_that_is_no_ledger_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database, " * 400)
    with pytest.raises(LedgerError, match=r"ledger\.sqlite is not a readable ledger"):
        Ledger(path)


def test_a_damaged_ledger_is_refused(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.start(FACTS)
    content = path.read_bytes()
    path.write_bytes(b"\xff" * 100 + content[100:])
    with pytest.raises(LedgerError, match="not a readable ledger"):
        Ledger(path)


def test_a_newer_version_is_refused_and_left_as_it_is(filled: Ledger, place: LedgerLocation) -> None:
    with filled.engine.begin() as connection:
        connection.execute(text("UPDATE ledger_version SET version_num = '99'"))
    with pytest.raises(LedgerError, match=f"ledger version 99, this program reads up to {VERSION}") as raised:
        Ledger(place)
    assert raised.value.hint
    assert len(filled.records()) == len(RECORDS)


def test_the_tables_of_something_else_are_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE run (id INTEGER PRIMARY KEY, distance REAL)")
        connection.execute("INSERT INTO run VALUES (1, 42.195)")
    connection.close()
    with pytest.raises(LedgerError, match="not a readable ledger"):
        Ledger(path)
    with sqlite3.connect(path) as connection:
        assert [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")] == ["run"]
    connection.close()


def test_a_ledger_that_is_written_to_is_not_taken_for_damaged(path: Path) -> None:
    """Readers come and go while the coordinator writes."""
    stop = threading.Event()
    with Ledger(path) as ledger:
        ledger.start(FACTS)

    def write() -> None:
        with Ledger(path) as ledger:
            while not stop.is_set():
                ledger.note("working", {"at": "it"}, 1.0)

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        try:
            for _ in range(40):
                Ledger(path).close()
        finally:
            stop.set()
        writer.result()
    with Ledger(path) as ledger:
        assert ledger.diary()


def test_every_result_is_told_in_the_diary_from_any_line_on(filled: Ledger) -> None:
    filled.clock = lambda: 3.5
    filled.note("generation", {"generation": 1}, 2.0)
    facts = {"value": 0.5, "stderr": None, "complete": True, "documents": 2, "tasks": {}}
    score = Summary(0.5, None, True, facts)
    filled.record_results("a", "search", {"t": {0: 1.0}}, score)
    filled.record_scores("held_out", {"a": score})
    filled.record_failure("1-10", Failed("search", "raised", "no\0thing"))
    lines = filled.events()
    assert [entry.name for _, entry in lines] == [
        "added",
        *["failed"] * len(FAILURES),
        "generation",
        "scored",
        "scored",
        "failed",
    ]
    assert lines[0][1].facts == {"individuals": [record.id for record in RECORDS]}
    assert lines[-2][1].facts == {"individual": "a", "split": "held_out", **facts}
    assert lines[-1][1].facts["error"] == "no\0thing"
    numbers = [number for number, _ in lines]
    assert numbers == sorted(set(numbers))
    assert filled.events(numbers[2], 2) == lines[3:5]
    assert filled.events(numbers[-1]) == []
    assert (filled.last_event(), filled.last_event(["generation"])) == (numbers[-1], numbers[1 + len(FAILURES)])
    assert [entry.name for entry in filled.diary()] == ["generation"]
    assert filled.seconds() == 3.5
