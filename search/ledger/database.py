"""Opening the database of a ledger: durable, of the present version, and, for a coordinator, its alone."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, inspect, select, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from kinship.errors import DatabaseUnavailable, LedgerError
from kinship.sqlite_files import Trouble, connected_to_read, only_to_be_read
from search.ledger import tables
from search.ledger.location import LedgerLocation

MIGRATING = 0x6B696E  # key of the lock under which a Postgres database is brought to the present version
CANNOT_WRITE = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_SHMSIZE", "SQLITE_READONLY")
VERSION_TABLE = "ledger_version"
SAVED = (
    "Put a copy of it back, or run the same run file in another folder: what the score cache holds is not scored "
    "again, and children/ are made as they were. `kinship runs verify` tells what is whole."
)


def open_database(location: LedgerLocation, *, exclusive: bool = False) -> Engine:
    """An engine whose every commit waits for the disk; tables are made, or brought to the present version.

    exclusive: hold the run's advisory lock for as long as the connection lasts (Postgres; beside a SQLite file, the
    folder's lock does this). There is then one connection, and one that is lost is not replaced unless the lock is
    free. Raises `LedgerError` for what is no ledger, is newer than this program, or is held by another process.
    """
    is_file = location.file is not None
    alone = {"pool_size": 1, "max_overflow": 0} if exclusive else {"pool_pre_ping": True}
    engine = durable_engine(location, **({} if is_file else alone))
    if exclusive and not is_file:
        event.listen(engine, "connect", lambda connection, _: _hold(connection, location))
    try:
        _bring_up_to_date(engine, location)
    except (*Trouble, DBAPIError) as error:
        engine.dispose()
        raise unreadable(location, error) from None
    except BaseException:
        engine.dispose()
        raise
    return engine


def durable_engine(location: LedgerLocation, **options: Any) -> Engine:
    """An engine whose every commit waits for the disk. Raises `LedgerError` where its driver is not installed."""
    file = location.file
    if file is not None and only_to_be_read(file):
        options["creator"] = lambda: connected_to_read(file)
    try:
        engine = create_engine(location.url, **options)
    except ModuleNotFoundError as error:
        raise LedgerError(
            f"{location} cannot be opened: {error}.", hint='Install the driver: pip install "model-kinship[postgres]".'
        ) from None
    event.listen(engine, "connect", _make_durable if location.file is None else _make_file_durable)
    return engine


def runs_in(location: LedgerLocation, engine: Engine | None = None) -> list[str]:
    """The names of the runs in the database of ``location``, sorted; ``engine``: one that is open already.

    Raises `LedgerError` where it cannot be read.
    """
    with _asked(location, engine or open_database(location), keep=engine is not None) as connection:
        return sorted(connection.scalars(select(tables.Run.name)))


def damage(engine: Engine) -> list[str] | None:
    """What is wrong with a SQLite file, or not as it was written; None of a server, which sees to that itself."""
    if engine.dialect.name != "sqlite":
        return None
    from search.ledger.checksums import damage_in

    with engine.connect() as connection:
        database: Any = connection.connection.dbapi_connection
        found = damage_in(database)
        keys = [] if found else connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    return found + [f"a {table} of nobody" for table, *_ in keys]


def unreadable(location: LedgerLocation, error: DBAPIError | sqlite3.Error | UnicodeDecodeError) -> LedgerError:
    """What is said where the database refuses to work."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    reason = str(cause).strip() or type(cause).__name__
    if location.file is not None:
        if getattr(cause, "sqlite_errorname", "") in CANNOT_WRITE:
            return LedgerError(
                f"{location} could not be written: {reason}.",
                hint="Every result told of is kept: make room on the disk, or see to its permissions, then go on with "
                "--resume.",
            )
        if getattr(cause, "sqlite_errorname", "").startswith(("SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
            return LedgerError(f"{location} could not be opened: {reason}.", hint="See to its permissions.")
        return LedgerError(f"{location} is not a readable ledger: {reason}.", hint=SAVED)
    if isinstance(error, OperationalError | InterfaceError):
        return DatabaseUnavailable(
            f"{location} cannot be reached, or the connection was lost: {reason}",
            hint="Every result told of is kept; see to the database, then go on with --resume.",
        )
    return LedgerError(f"{location} is not a readable ledger: {reason}")


def _bring_up_to_date(engine: Engine, location: LedgerLocation) -> None:
    with engine.connect() as connection:
        if _version(connection) == tables.VERSION:
            return
    from search import migrations
    from search.ledger.checksums import note_all

    with engine.connect() as connection:
        begin_alone(connection)
        found = _version(connection)  # another process may have been at it
        if found is not None and found not in migrations.known_versions():
            raise LedgerError(
                f"{location} has ledger version {found}, this program reads up to {tables.VERSION}.",
                hint="Use the version of model-kinship that wrote it, or a newer one.",
            )
        migrations.upgrade(connection, found)
        note_all(connection)
        connection.commit()


def _version(connection: Connection) -> str | None:
    """The version of the ledger; None where there is none yet."""
    if VERSION_TABLE not in inspect(connection).get_table_names():
        return None
    return str(connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")))


def begin_alone(connection: Connection) -> None:
    """A transaction that holds changes of tables too, and that no other process is in."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATING})")


def _make_file_durable(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    with suppress(Exception):  # read-only media cannot switch to WAL, and need not
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA wal_autocheckpoint=1")  # so that a copy without the -wal file lacks nothing acknowledged
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _make_durable(connection: Any, _: object) -> None:
    connection.execute("SET synchronous_commit TO on")
    connection.commit()


def is_run_held(location: LedgerLocation, engine: Engine | None = None) -> bool:
    """Whether a process holds the lock of a run in a Postgres database; nothing is taken to find out.

    engine: one that is open already. Raises `LedgerError` where the database cannot be asked.
    """
    key = _key(location) & (1 << 64) - 1
    held = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
        "AND classid::bigint = :high AND objid::bigint = :low "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with _asked(location, engine or durable_engine(location), keep=engine is not None) as connection:
        return bool(connection.scalar(held, {"high": key >> 32, "low": key & 0xFFFFFFFF}))


def run_state(location: LedgerLocation, engine: Engine) -> tuple[object, ...]:
    """What is another whenever a run in a database is: its key, its last event, and why it stopped; one query.

    Raises `LedgerError`.
    """
    run, line = tables.Run, tables.Event
    last = select(func.max(line.id)).where(line.run == run.id).scalar_subquery()
    query = select(run.id, last, run.stopped).where(run.name == location.run)
    with _asked(location, engine, keep=True) as connection:
        found = connection.execute(query).first()
        return () if found is None else tuple(found)


@contextmanager
def _asked(location: LedgerLocation, engine: Engine, *, keep: bool) -> Iterator[Connection]:
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        raise unreadable(location, error) from None
    finally:
        if not keep:
            engine.dispose()


def _key(location: LedgerLocation) -> int:
    return int.from_bytes(hashlib.blake2b(location.run.encode(), digest_size=8).digest(), signed=True)


def _hold(connection: Any, location: LedgerLocation) -> None:
    """Take the run's lock for this connection; the server frees it when the connection ends, however that happens."""
    key = _key(location)
    (held,) = connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
    connection.commit()
    if not held:
        raise LedgerError(f"Another process is running {location}.", hint="Wait for it, or stop it first.")
