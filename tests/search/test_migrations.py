"""Ledgers written by earlier programs, kept as they were, against what those programs exported of them."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect

from kinship.errors import LedgerError
from search.history.export import export_run, to_json
from search.ledger.ledger import LEDGER_NAME, Ledger
from search.ledger.tables import VERSION, Table
from search.migrations import known_versions
from tests.search.frozen import FROZEN, thawed

OLD = [version for version in known_versions() if version != VERSION]
ADDED = {  # what an export has said since, by the version that did not
    "1": {"tasks": {"fake": {"metric": "", "digest": ""}}, "conditions": {}},
    "2": {},
}


def columns(path: Path) -> dict[str, Any]:
    """The tables, their columns, keys and constraints."""
    engine = create_engine(f"sqlite:///{path}")
    found = {}
    for name in inspect(engine).get_table_names():
        look = inspect(engine)
        found[name] = (
            sorted((c["name"], str(c["type"]), c["nullable"]) for c in look.get_columns(name)),
            look.get_pk_constraint(name)["constrained_columns"],
            sorted((f["constrained_columns"], f["referred_table"], f["referred_columns"])
                   for f in look.get_foreign_keys(name)),
            sorted(u["column_names"] for u in look.get_unique_constraints(name)),
        )  # fmt: skip
    engine.dispose()
    return found


def test_every_version_but_this_one_is_frozen() -> None:
    assert known_versions()[-1] == VERSION
    assert OLD
    assert sorted(FROZEN.glob("*.sqlite")) == [FROZEN / f"ledger-v{version}.sqlite" for version in OLD]


@pytest.mark.parametrize("version", OLD)
def test_an_older_ledger_says_what_it_said(version: str, tmp_path: Path) -> None:
    with Ledger(thawed(version, tmp_path)) as ledger:
        export = json.loads(to_json(export_run(ledger)))
    wanted = json.loads((FROZEN / f"ledger-v{version}.json").read_text())
    wanted |= ADDED[version]
    wanted["config"]["strategy"].setdefault("name", "topk")
    for individual in wanted["individuals"]:
        individual.setdefault("twin", None)
    for later in ("comparisons", "pareto_front"):  # follow from the rest
        assert later not in wanted
        wanted[later] = export[later]
    wanted["recommended"] = None  # no strategy had an opinion then
    assert export == wanted
    assert sum(individual["error"] is not None for individual in export["individuals"]) == 1


@pytest.mark.parametrize("version", OLD)
def test_an_older_ledger_gets_the_tables_of_a_new_one(version: str, tmp_path: Path) -> None:
    path = thawed(version, tmp_path)
    Ledger(path).close()
    (tmp_path / "new").mkdir()
    Ledger(tmp_path / "new" / LEDGER_NAME).close()
    assert columns(path) == columns(tmp_path / "new" / LEDGER_NAME)
    assert set(columns(path)) == {*Table.metadata.tables, "ledger_version"}
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM ledger_version").fetchall() == [(VERSION,)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
    before = path.read_bytes()
    Ledger(path).close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", OLD)
def test_everything_an_older_ledger_holds_can_be_read(version: str, tmp_path: Path) -> None:
    with Ledger(thawed(version, tmp_path)) as ledger:
        records = {record.id: record for record in ledger.records()}
        genomes = ledger.genomes(records)
        assert set(genomes) == {id for id, record in records.items() if record.identity is not None}
        assert [len(failed) for failed in ledger.failures().values()] == [1]
        (stage,) = {failed.stage for all in ledger.failures().values() for failed in all}
        assert stage == "search"
        for id, record in records.items():
            for split, score in record.scores.items():
                values = list(ledger.results(id, split)["fake"].values())
                assert score.value == pytest.approx(sum(values) / len(values), rel=1e-12)
        assert len(ledger.stored()) == (5 if version == "2" else 0)
        ledger.note("paused", {}, 2.0)  # it may be written to, too
        assert ledger.diary()[-1].name == "paused"


@pytest.mark.parametrize("version", OLD)
def test_a_ledger_that_cannot_be_brought_up_to_date_is_left_as_it_was(version: str, tmp_path: Path) -> None:
    path = thawed(version, tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA writable_schema=1")
        connection.execute("CREATE TABLE ledger_version_ (x)")
        connection.execute("ALTER TABLE score RENAME COLUMN split TO slit")
    connection.close()
    with sqlite3.connect(path) as connection:
        before = "\n".join(connection.iterdump())
    connection.close()
    with pytest.raises(LedgerError, match="not a readable ledger"):
        Ledger(path)
    with sqlite3.connect(path) as connection:
        assert "\n".join(connection.iterdump()) == before
    connection.close()


@pytest.mark.parametrize("version", OLD)
def test_a_ledger_in_which_nothing_was_begun(version: str, tmp_path: Path) -> None:
    path = thawed(version, tmp_path)
    with sqlite3.connect(path) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            connection.execute(f"DELETE FROM {name}")
    connection.close()
    with Ledger(path) as ledger:
        assert ledger.facts() is None
        assert ledger.records() == []
