"""Where the ledger of a run is: a file in its folder, or a run by name in a database that the folder points to."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from kinship.errors import LedgerError, OutputNotWritable
from kinship.output import output_file

LEDGER_NAME = "ledger.sqlite"
POINTER_NAME = "ledger.json"
ONLY_RUN = "run"  # what the one run of a SQLite file is called
DRIVER = "postgresql+psycopg"


@dataclass(frozen=True)
class LedgerLocation:
    """A run by name in the database at ``url``."""

    url: URL
    run: str

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The SQLite file at ``path``, of one run."""
        return cls(URL.create("sqlite", database=str(path)), ONLY_RUN)

    @classmethod
    def parse(cls, text: str, run: str | None = None) -> Self:
        """From ``postgresql://USER@HOST/DATABASE#RUN``; ``run`` where no name is given.

        Raises `LedgerError` for what is no such URL, and where a name is missing.

        >>> str(LedgerLocation.parse("postgresql://ann:secret@db.lab/merges#first"))
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


def location_of(folder: Path, ledger: str | None = None) -> LedgerLocation:
    """Where the ledger of the run in ``folder`` is, or will be. ``ledger``: a URL, for a run in a database.

    Raises `LedgerError` where ``folder`` says that it is elsewhere.
    """
    given = None if ledger is None else LedgerLocation.parse(ledger, folder.absolute().name)
    recorded = _recorded(folder)
    if given is None:
        return recorded or LedgerLocation.of_file(folder / LEDGER_NAME)
    if recorded is None and (folder / LEDGER_NAME).exists():
        recorded = LedgerLocation.of_file(folder / LEDGER_NAME)
    if recorded is not None and str(recorded) != str(given):
        raise LedgerError(
            f"The run in {folder} is kept in {recorded}, not in {given}.",
            hint="Leave --ledger out, or choose another --out.",
        )
    return given


def write_pointer(folder: Path, location: LedgerLocation) -> None:
    """Write into ``folder`` in which database its run is; nothing for a file, which is found by its name."""
    if location.file is None and _recorded(folder) is None:
        with output_file(folder / POINTER_NAME) as partial:
            partial.write_text(
                json.dumps({"schema": "kinship.ledger/1", "ledger": str(location)}) + "\n", encoding="utf-8"
            )


def _recorded(folder: Path) -> LedgerLocation | None:
    pointer = folder / POINTER_NAME
    if not pointer.is_file():
        return None
    try:
        content = json.loads(pointer.read_text(encoding="utf-8"))
        return LedgerLocation.parse(content["ledger"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LedgerError(
            f"{pointer} does not say where the ledger is.", hint='It holds {"ledger": "postgresql://...#RUN"}.'
        ) from None


def _without_password(url: URL) -> str:
    return url._replace(password=None).difference_update_query(["password", "sslpassword"]).render_as_string()


def hold_folder(folder: Path) -> FileLock:
    """The lock on ``folder``, which is made, for as long as a search runs in it. Raises `LedgerError` where another
    process has it, and `OutputNotWritable`.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise LedgerError(f"Another process is running in {folder}.", hint="Wait for it, or stop it first.") from None
    except OSError as error:
        raise OutputNotWritable(
            f"{folder} cannot be written: {error.strerror or error}.", hint="Make room, or choose another folder."
        ) from error
    return lock
