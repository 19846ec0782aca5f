"""The tables of a service: its jobs, and the devices they take turns at. In a file, or beside runs in a database."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine, String, UniqueConstraint, insert, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.schema import CreateColumn

from kinship.errors import LedgerError
from kinship.sqlite_files import Trouble, damage_of
from search.ledger.database import begin_alone, durable_engine, unreadable
from search.ledger.location import LedgerLocation
from search.ledger.tables import Json

VERSION = "1"
AWAY = "Put a copy of it back, or move it away: jobs and remembered models are forgotten then, runs are not."


class Base(DeclarativeBase):
    """Base of the tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {list[str]: Json}


class Version(Base):
    """Which tables these are."""

    __tablename__ = "service_version"
    version: Mapped[str] = mapped_column(String, primary_key=True)


class JobRow(Base):
    """One job. owner: the host and workspace that run it. intent: what was last asked of it. position: in the queue.

    run: its folder, in the workspace. tries: processes lost since it got further than what it had ``reached``.
    key, digest: of the request that asked for it, so that it is not done twice. slot: while a process has it.
    """

    __tablename__ = "job"
    __table_args__ = (UniqueConstraint("owner", "key"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    kind: Mapped[str]
    title: Mapped[str]
    arguments: Mapped[list[str]]
    device: Mapped[str]
    run: Mapped[str | None]
    intent: Mapped[str] = mapped_column(default="run", server_default="run")
    state: Mapped[str] = mapped_column(default="queued", server_default="queued")
    position: Mapped[float]
    starts: Mapped[int] = mapped_column(default=0, server_default="0")
    tries: Mapped[int] = mapped_column(default=0, server_default="0")
    reached: Mapped[int] = mapped_column(default=0, server_default="0")
    slot: Mapped[str | None]
    key: Mapped[str | None]
    digest: Mapped[str | None]
    created: Mapped[str]
    started: Mapped[str | None]
    ended: Mapped[str | None]
    error: Mapped[str | None]
    hint: Mapped[str | None]


class ModelRow(Base):
    """A model that is remembered by its reference."""

    __tablename__ = "model"
    owner: Mapped[str] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(primary_key=True)


class SlotRow(Base):
    """What a job can run on: ``cpu``, ``cuda:0``, ``light`` ...; ``number`` tells those of one name apart."""

    __tablename__ = "slot"
    owner: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    job: Mapped[int | None]


def open_tables(location: LedgerLocation) -> Engine:
    """An engine for the tables at ``location``: what is not there yet, or an older version did not have, is made.

    Raises `LedgerError` for what is no database, of a newer version, or has other tables by these names.
    """
    engine = durable_engine(location, pool_pre_ping=location.file is None)
    try:
        with engine.connect() as connection:
            _require_whole(location, connection)
            begin_alone(connection)
            _require_readable(location, connection)
            _complete(location, connection)
            connection.commit()
    except (*Trouble, DBAPIError) as error:
        engine.dispose()
        raise _unusable(location, error) from None
    except LedgerError:
        engine.dispose()
        raise
    return engine


def _unusable(location: LedgerLocation, error: Any) -> LedgerError:
    """As of a ledger, but for what a file of the service is worth."""
    told = unreadable(location, error)
    if location.file is None:
        return told
    reason = told.message.removeprefix(f"{location} ")
    hint = f"See to its permissions and to the disk. {AWAY}"
    return LedgerError(f"The service's own file {location} cannot be used: it {reason}", hint=hint)


def _require_whole(location: LedgerLocation, connection: Connection) -> None:
    if location.file is None:
        return  # a server sees to its own pages
    database: Any = connection.connection.dbapi_connection
    trouble = damage_of(database)
    if trouble is not None:
        raise LedgerError(f"{location} is damaged: {trouble}.", hint=AWAY)


def _require_readable(location: LedgerLocation, connection: Connection) -> None:
    if not inspect(connection).has_table(Version.__tablename__):
        return
    found = connection.scalar(select(Version.version))
    if found is not None and found != VERSION:
        raise LedgerError(
            f"{location} has tables of a service of version {found}, this program reads {VERSION}.",
            hint=f"Use the version of model-kinship that wrote it, or a newer one. {AWAY}",
        )


def _complete(location: LedgerLocation, connection: Connection) -> None:
    Base.metadata.create_all(connection)
    tables = inspect(connection)
    for table in Base.metadata.sorted_tables:
        there = {column["name"] for column in tables.get_columns(table.name)}
        for column in table.columns:
            if column.name in there:
                continue
            if not column.nullable and column.server_default is None:
                raise LedgerError(
                    f"The table {table.name!r} of {location} has no {column.name!r}: no service made it.",
                    hint=f"Keep the service in a database of its own. {AWAY}",
                )
            told = CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {told}")
    if connection.scalar(select(Version.version)) is None:
        connection.execute(insert(Version).values(version=VERSION))


def set_slots(session: Session, owner: str, devices: list[str]) -> None:
    """Have the slots of ``owner`` be ``devices``; what runs on one that goes away runs on."""
    wanted = {(device, devices[:place].count(device)) for place, device in enumerate(devices)}
    there = {(slot.device, slot.number): slot for slot in session.scalars(select(SlotRow).filter_by(owner=owner))}
    for place in wanted - there.keys():
        session.add(SlotRow(owner=owner, device=place[0], number=place[1]))
    for place in there.keys() - wanted:
        session.delete(there[place])


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
