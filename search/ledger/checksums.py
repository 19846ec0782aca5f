"""A checksum of every row of a ledger that is a SQLite file, beside the rows, in the transaction that writes them.

What was written is there for as long as rows and checksums are the same ones. Servers see to their own pages.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from kinship.sqlite_files import Trouble, checksum, damage_of, is_damage
from search.ledger import tables

_NOTE = 'INSERT INTO checksum (run, "of", checksum) VALUES (?, ?, ?)'


def note_changes(session: Session, _: Any = None) -> None:
    """To be called after a flush: note the checksums of what was added, and of the tables that were changed."""
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        return
    database, noted = _driver(connection), []
    for row in session.new:
        table = row.__table__
        (values,) = database.execute(_row_of(table), [getattr(row, key.name) for key in table.primary_key])
        noted.append((getattr(row, "run", None) or row.id, table.name, checksum(*values)))
    database.executemany(_NOTE, noted)
    for table in {row.__table__ for row in session.dirty}:
        _note_anew(database, table)


def note_all(connection: Connection) -> None:
    """Note the checksums of all rows, of a ledger that had none, or whose tables were just brought to the present."""
    if connection.dialect.name == "sqlite":
        for table in _checked():
            _note_anew(_driver(connection), table)


def _driver(connection: Connection) -> sqlite3.Connection:
    """The connection as the driver has it, in the same transaction: SQLAlchemy takes ten times as long a row."""
    return connection.connection.dbapi_connection  # type: ignore[return-value]


def damage_in(database: sqlite3.Connection) -> list[str]:
    """What is not as it was written: of the pages, else of the rows by table; nothing of a sound ledger.

    Cost: the file is read twice.
    """
    try:
        database.execute("BEGIN")  # somebody may write meanwhile: rows and checksums are of one moment
        trouble = damage_of(database)
        return [trouble] if trouble else list(_changed(database))
    except Trouble as error:
        if not is_damage(error):
            raise
        return [str(error)]
    finally:
        database.rollback()


def _changed(database: sqlite3.Connection) -> Iterator[str]:
    noted: dict[str, Counter[int]] = {}
    for (name, total), count in Counter(database.execute("SELECT of, checksum FROM checksum")).items():
        noted.setdefault(name, Counter())[total] = count
    for table in _checked():
        then = noted.pop(table.name, Counter())
        now = Counter(checksum(*row) for row in database.execute(_rows_of(table)))
        if then != now:
            changed = max((then - now).total(), (now - then).total())
            yield f"{changed} of {then.total()} rows of {table.name} differ from what was written"
    if noted:
        yield "some checksums are of no table"


def _note_anew(database: sqlite3.Connection, table: Any) -> None:
    database.execute('DELETE FROM checksum WHERE "of" = ?', [table.name])
    run = [column.name for column in table.columns].index("id" if table.name == "run" else "run")
    rows = database.execute(_rows_of(table)).fetchall()
    database.executemany(_NOTE, [(row[run], table.name, checksum(*row)) for row in rows])


@cache
def _rows_of(table: Any) -> str:
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    return f'SELECT {columns} FROM "{table.name}"'


@cache
def _row_of(table: Any) -> str:
    keys = " AND ".join(f'"{column.name}" = ?' for column in table.primary_key)
    return f"{_rows_of(table)} WHERE {keys}"


def _checked() -> list[Any]:
    return [table for table in tables.Table.metadata.sorted_tables if table is not tables.Checksum.__table__]
