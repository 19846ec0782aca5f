"""Opening the database of a ledger: durable, of the present version, and, for a coordinator, its alone."""

import hashlib
import json
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from kinship.errors import LedgerError
from kinship.output import output_file
from search.ledger import tables

LEDGER_NAME = "ledger.sqlite"
POINTER_NAME = "ledger.json"
ALONE = "run"  # what the one run of a SQLite file is called
DRIVER = "postgresql+psycopg"


@dataclass(frozen=True)
class Place:
    """A run by name in the database at ``url``."""

    url: URL
    run: str

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The SQLite file at ``path``, of one run."""
        return cls(URL.create("sqlite", database=str(path)), ALONE)

    @classmethod
    def parse(cls, text: str, run: str | None = None) -> Self:
        """From ``postgresql://USER@HOST/DATABASE#RUN``; ``run`` where no name is given.

        Raises `LedgerError` for what is no such URL, and where a name is missing.

        >>> place = Place.parse("postgresql://ann:secret@db.lab/merges#first")
        >>> str(place)
        'postgresql+psycopg://ann@db.lab/merges#first'
        """
        address, _, name = text.rpartition("#") if "#" in text else (text, "", "")
        try:
            url = make_url(address)
        except ArgumentError:
            raise LedgerError("The ledger is no database URL.", hint=_EXAMPLE) from None
        if url.drivername not in {"postgresql", DRIVER}:
            raise LedgerError(f"A ledger in {url.drivername!r} is not known; expected postgresql.", hint=_EXAMPLE)
        if not (name or run):
            raise LedgerError(f"{_without_password(url)} does not say which run.", hint=_EXAMPLE)
        return cls(url.set(drivername=DRIVER), name or run or "")

    @property
    def file(self) -> Path | None:
        """The SQLite file; None in a database."""
        return Path(self.url.database or "") if self.url.drivername == "sqlite" else None

    def __str__(self) -> str:
        """What people are told: the path of the file, or the URL without its password, and the run's name."""
        return str(self.file) if self.file else f"{_without_password(self.url)}#{self.run}"


_EXAMPLE = "Give postgresql://USER@HOST/DATABASE#RUN; the password may be in PGPASSWORD or ~/.pgpass instead."


def holds_run(folder: Path) -> bool:
    """Whether ``folder`` is that of a run."""
    return (folder / LEDGER_NAME).is_file() or (folder / POINTER_NAME).is_file()


def place_of(folder: Path, ledger: str | None = None) -> Place:
    """Where the ledger of the run in ``folder`` is, or will be. ``ledger``: a URL, for a run in a database.

    Raises `LedgerError` where ``folder`` says that it is elsewhere.
    """
    given = None if ledger is None else Place.parse(ledger, folder.absolute().name)
    recorded = _recorded(folder)
    if given is None:
        return recorded or Place.of_file(folder / LEDGER_NAME)
    if recorded is None and (folder / LEDGER_NAME).exists():
        recorded = Place.of_file(folder / LEDGER_NAME)
    if recorded is not None and str(recorded) != str(given):
        raise LedgerError(
            f"The run in {folder} is kept in {recorded}, not in {given}.",
            hint="Leave --ledger out, or choose another --out.",
        )
    return given


def remember(folder: Path, place: Place) -> None:
    """Write into ``folder`` in which database its run is; nothing for a file, which is found by its name."""
    if place.file is None and _recorded(folder) is None:
        with output_file(folder / POINTER_NAME) as partial:
            partial.write_text(
                json.dumps({"schema": "kinship.ledger/1", "ledger": str(place)}) + "\n", encoding="utf-8"
            )


def _recorded(folder: Path) -> Place | None:
    pointer = folder / POINTER_NAME
    if not pointer.is_file():
        return None
    try:
        content = json.loads(pointer.read_text(encoding="utf-8"))
        return Place.parse(content["ledger"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LedgerError(
            f"{pointer} does not say where the ledger is.", hint='It holds {"ledger": "postgresql://...#RUN"}.'
        ) from None


def _without_password(url: URL) -> str:
    return url._replace(password=None).difference_update_query(["password", "sslpassword"]).render_as_string()


MIGRATING = 0x6B696E  # key of the lock under which a Postgres database is brought to the present version
CANNOT_WRITE = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_SHMSIZE", "SQLITE_READONLY")
VERSION_TABLE = "ledger_version"


def open_database(place: Place, *, exclusive: bool = False) -> Engine:
    """An engine whose every commit waits for the disk; tables are made, or brought to the present version.

    exclusive: hold the run's advisory lock for as long as the connection lasts (Postgres; beside a SQLite file, the
    folder's lock does this). There is then one connection, and one that is lost is not replaced unless the lock is
    free. Raises `LedgerError` for what is no ledger, is newer than this program, or is held by another process.
    """
    is_file = place.file is not None
    try:
        engine = create_engine(place.url, **({"pool_size": 1, "max_overflow": 0} if exclusive and not is_file else {}))
    except ModuleNotFoundError as error:
        raise LedgerError(
            f"{place} cannot be opened: {error}.", hint='Install the driver: pip install "model-kinship[postgres]".'
        ) from None
    event.listen(engine, "connect", _make_file_durable if is_file else _make_durable)
    if exclusive and not is_file:
        event.listen(engine, "connect", lambda connection, _: _hold(connection, place))
    try:
        _bring_up_to_date(engine, place)
    except DBAPIError as error:
        engine.dispose()
        raise unreadable(place, error) from None
    except BaseException:
        engine.dispose()
        raise
    return engine


def runs_in(place: Place) -> list[str]:
    """The names of the runs in the database of ``place``, sorted."""
    engine = open_database(place)
    try:
        with engine.connect() as connection:
            return sorted(connection.scalars(select(tables.Run.name)))
    finally:
        engine.dispose()


def damage(engine: Engine) -> list[str] | None:
    """What SQLite finds wrong with its file; None of a server, which sees to that itself."""
    if engine.dialect.name != "sqlite":
        return None
    with engine.connect() as connection:
        whole = [str(line) for line in connection.exec_driver_sql("PRAGMA integrity_check").scalars()]
        keys = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    return [line for line in whole if line != "ok"] + [f"a {table} of nobody" for table, *_ in keys]


def unreadable(place: Place, error: DBAPIError) -> LedgerError:
    """What is said where the database refuses to work."""
    reason = str(error.orig).strip() or type(error.orig).__name__
    if place.file is not None:
        if getattr(error.orig, "sqlite_errorname", "") in CANNOT_WRITE:
            return LedgerError(
                f"{place} could not be written: {reason}.",
                hint="Every result told of is kept: make room on the disk, or see to its permissions, then go on with "
                "--resume.",
            )
        return LedgerError(f"{place} is not a readable ledger: {reason}.")
    if isinstance(error, OperationalError | InterfaceError):
        return LedgerError(
            f"{place} cannot be reached, or the connection was lost: {reason}",
            hint="Every result told of is kept; see to the database, then go on with --resume.",
        )
    return LedgerError(f"{place} is not a readable ledger: {reason}")


def _bring_up_to_date(engine: Engine, place: Place) -> None:
    with engine.connect() as connection:
        found = _version(connection)
    if found == tables.VERSION:
        return
    from search import migrations

    with engine.connect() as connection:
        _begin_alone(connection)
        found = _version(connection)  # another process may have been at it
        if found is None:
            tables.Table.metadata.create_all(connection)
            migrations.stamp(connection, tables.VERSION)
        elif found not in migrations.known_versions():
            raise LedgerError(
                f"{place} has ledger version {found}, this program reads up to {tables.VERSION}.",
                hint="Use the version of model-kinship that wrote it, or a newer one.",
            )
        elif found != tables.VERSION:
            try:
                migrations.upgrade(connection, found)
            except (LookupError, ValueError, zlib.error) as error:
                raise LedgerError(
                    f"{place} is damaged: it cannot be brought from version {found} to {tables.VERSION}.",
                    hint="It was left as it is.",
                ) from error
        connection.commit()


def _version(connection: Connection) -> str | None:
    """The version of the ledger; None where there is none yet. Before version 3, it was in the table of the run."""
    names = inspect(connection).get_table_names()
    if VERSION_TABLE in names:
        return str(connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")))
    if tables.Run.__tablename__ not in names:
        return None
    version = connection.scalar(text("SELECT schema_version FROM run"))
    begun = {column["name"] for column in inspect(connection).get_columns("run")}
    return str(version or (2 if "tasks" in begun else 1))


def _begin_alone(connection: Connection) -> None:
    """A transaction that holds changes of tables too, and that no other process is in."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATING})")


def _make_file_durable(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    with suppress(Exception):  # read-only media cannot switch to WAL, and need not
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _make_durable(connection: Any, _: object) -> None:
    connection.execute("SET synchronous_commit TO on")
    connection.commit()


def _hold(connection: Any, place: Place) -> None:
    """Take the run's lock for this connection; the server frees it when the connection ends, however that happens."""
    key = int.from_bytes(hashlib.blake2b(place.run.encode(), digest_size=8).digest(), signed=True)
    (held,) = connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
    connection.commit()
    if not held:
        raise LedgerError(f"Another process is running {place}.", hint="Wait for it, or stop it first.")
