"""The steps make the tables that the program works with, all of them or none."""

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from kinship.errors import LedgerError
from search import migrations
from search.history.export import export_run
from search.ledger import tables
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME, LedgerLocation
from tests.search.postgres import Server
from tests.search.runs import put_small_run


def differences(ledger: Ledger) -> list[object]:
    """Between the tables in the database and those of `search.ledger.tables`, types and constraints included."""
    with ledger.engine.connect() as connection:
        options = {"version_table": migrations.VERSION_TABLE, "compare_type": True}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), tables.Table.metadata)
        version = connection.execute(text(f"SELECT version_num FROM {migrations.VERSION_TABLE}")).scalar_one()
    assert version == tables.VERSION
    return list(found)


def test_the_steps_make_the_tables(tmp_path: Path) -> None:
    assert migrations.known_versions()[-1] == tables.VERSION
    with Ledger(tmp_path / LEDGER_NAME) as ledger:
        assert differences(ledger) == []
        with ledger.engine.begin() as connection:
            connection.execute(text("ALTER TABLE score ADD COLUMN colour VARCHAR"))
        assert len(differences(ledger)) == 1  # such a difference is seen


def test_the_steps_make_the_same_constraints_as_the_tables(tmp_path: Path) -> None:
    """Keys and uniqueness, which `compare_metadata` does not all see in SQLite."""
    from sqlalchemy import create_engine, inspect

    Ledger(tmp_path / LEDGER_NAME).close()
    found = []
    for name in (LEDGER_NAME, "declared.sqlite"):
        engine = create_engine(f"sqlite:///{tmp_path / name}")
        if name != LEDGER_NAME:
            tables.Table.metadata.create_all(engine)
        look = inspect(engine)
        found.append({
            table: (
                sorted((each["name"], str(each["type"]), each["nullable"]) for each in look.get_columns(table)),
                look.get_pk_constraint(table)["constrained_columns"],
                sorted((key["constrained_columns"], key["referred_table"], key["referred_columns"])
                       for key in look.get_foreign_keys(table)),
                sorted(unique["column_names"] for unique in look.get_unique_constraints(table)),
            )
            for table in look.get_table_names() if table != migrations.VERSION_TABLE
        })  # fmt: skip
        engine.dispose()
    assert found[0] == found[1]
    assert set(found[0]) == set(tables.Table.metadata.tables)


@pytest.mark.xdist_group("postgres")
def test_the_steps_make_the_tables_in_postgres(postgres: Server) -> None:
    with Ledger(LedgerLocation.parse(postgres.new_database(), "mine")) as ledger:
        assert differences(ledger) == []


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program with one step more; returns the step, which the test writes."""
    steps = tmp_path / "steps"
    (steps / "versions").mkdir(parents=True)
    for step in (migrations.STEPS / "versions").glob("v*.py"):
        (steps / "versions" / step.name).write_text(step.read_text())
    monkeypatch.setattr(migrations, "STEPS", steps)
    monkeypatch.setattr(tables, "VERSION", "3")
    return steps / "versions" / "v3_next.py"


STEP = 'from alembic import op\nrevision, down_revision = "3", "2"\ndef upgrade() -> None:\n'


def test_an_older_ledger_is_brought_to_the_present(tmp_path: Path, next_version: Path) -> None:
    path = put_small_run(tmp_path)
    next_version.write_text(STEP + "    op.execute(\"UPDATE run SET stopped = 'later'\")\n")
    with Ledger(path) as ledger:
        assert export_run(ledger)["stopped"] == "later"
        assert len(ledger.records()) > 5
        ledger.set_stopped("again")
    with Ledger(path) as ledger:
        assert ledger.stopped() == "again"  # the step is taken once


def test_a_step_that_fails_leaves_the_ledger_as_it_was(tmp_path: Path, next_version: Path) -> None:
    path = put_small_run(tmp_path)
    lines = ("CREATE TABLE half (x INTEGER)", "UPDATE run SET stopped = NULL", "SELECT colour FROM run")
    next_version.write_text(STEP + "".join(f'    op.execute("{line}")\n' for line in lines))
    before = dump(path)
    with pytest.raises(LedgerError, match="not a readable ledger"):
        Ledger(path)
    assert dump(path) == before


def dump(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return "\n".join(connection.iterdump())
    finally:
        connection.close()
