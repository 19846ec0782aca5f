"""Where the ledger of a run is: a file in its folder, or a run by name in a database that the folder points to."""

import errno
import fcntl
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from kinship.errors import KinshipWarning, LedgerError, OutputNotWritable
from kinship.output import output_file, retired

if TYPE_CHECKING:
    from sqlalchemy import URL

LEDGER_NAME = "ledger.sqlite"
POINTER_NAME = "ledger.json"
STARTED_NAME = ".started"  # there once a run is in the ledger, whatever becomes of that
LOCK_NAME = ".lock"
BEST = "best-offspring"  # the folder of a run's best model
PROBED = 0.3  # seconds: somebody may be looking just now whether the lock is held
ONLY_RUN = "run"  # what the one run of a SQLite file is called
DRIVER = "postgresql+psycopg"


@dataclass(frozen=True)
class LedgerLocation:
    """A run by name in the database at ``url``."""

    url: "URL"
    run: str

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The SQLite file at ``path``, of one run."""
        from sqlalchemy import URL

        return cls(URL.create("sqlite", database=str(path)), ONLY_RUN)

    @classmethod
    def parse(cls, text: str, run: str | None = None) -> Self:
        """From ``postgresql://USER@HOST/DATABASE#RUN``; ``run`` where no name is given.

        Raises `LedgerError` for what is no such URL, and where a name is missing.

        >>> str(LedgerLocation.parse("postgresql://ann:secret@db.lab/merges#first"))
        'postgresql+psycopg://ann@db.lab/merges#first'
        """
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

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


def mark_started(folder: Path) -> None:
    """Leave word in ``folder`` that its ledger holds a run, for `require_ledger`. Raises `OutputNotWritable`."""
    try:
        (folder / STARTED_NAME).touch()
    except OSError as error:
        raise _unwritable(folder, error) from error


def require_ledger(folder: Path, location: LedgerLocation, *, empty: bool = False) -> None:
    """Raise `LedgerError` where a run was started in ``folder`` and its ledger is gone, or is ``empty``.

    Of a ledger that lost the file beside it with the latest changes this warns.
    """
    file = location.file
    if file is not None and file.is_file() and file.stat().st_size:
        if file.with_name(f"{file.name}-shm").exists() and not file.with_name(f"{file.name}-wal").exists():
            lost = f"{file} lost its -wal file: what was recorded last may be missing."
            warnings.warn(lost, KinshipWarning, stacklevel=2)
    elif file is not None:
        empty = True
    if empty and (left := [name for name in (STARTED_NAME, *_LEFT_BY_RUNS) if _holds_something(folder / name)]):
        what = "is missing" if file is not None and not file.exists() else "is empty: it holds no run"
        raise LedgerError(
            f"A run was started in {folder} ({', '.join(left)} tells), but its ledger {location} {what}.",
            hint="Put the ledger back, with its -wal file if it had one, or choose another --out.",
        )


_LEFT_BY_RUNS = ("export.json", "report.html", BEST, "children")


def _holds_something(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


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


def _without_password(url: "URL") -> str:
    return url._replace(password=None).difference_update_query(["password", "sslpassword"]).render_as_string()


def is_held(lock: Path) -> bool:
    """Whether a process holds the file ``lock`` exclusively; looking takes it, shared, for no longer than that.

    Raises `LedgerError` where nobody may look, or the file system has no locks.
    """
    try:
        file = os.open(lock, os.O_RDONLY | os.O_NONBLOCK)  # a pipe has nobody who writes
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LedgerError(f"{lock} cannot be read: {error.strerror}.", hint="See to its permissions.") from None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise LedgerError(f"{lock} cannot be locked: {error.strerror}.", hint=_LOCKS) from None
    finally:
        os.close(file)
    return False


def identity(file: Path) -> tuple[int, int] | None:
    """Which file is at a path, whatever was written to it meanwhile; None where there is none."""
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def hold_folder(folder: Path) -> FileLock:
    """The lock on ``folder``, which is made, for as long as a search runs in it. Raises `LedgerError` where another
    process has it, and `OutputNotWritable`.
    """
    lock = FileLock(folder / LOCK_NAME)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=PROBED)
    except Timeout:
        raise LedgerError(f"Another process is running in {folder}.", hint="Wait for it, or stop it first.") from None
    except OSError as error:
        if error.errno in _LOCKLESS:
            why = f"{folder} cannot be locked ({error.strerror}), and two searches could write one ledger."
            raise OutputNotWritable(why, hint=_LOCKS) from error
        raise _unwritable(folder, error) from error
    return lock


_LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_LOCKS = "Choose a folder on a file system that has locks (flock); of NFS, see that its lock service runs."


def _unwritable(folder: Path, error: OSError) -> OutputNotWritable:
    return OutputNotWritable(
        f"{folder} cannot be written: {error.strerror or error}.", hint="Make room, or choose another folder."
    )


def require_idle(folder: Path) -> None:
    """Raise `LedgerError` where a search runs in ``folder``."""
    if (folder / LOCK_NAME).exists():
        hold_folder(folder).release(force=True)


@contextmanager
def replaced_run(folder: Path) -> Iterator[None]:
    """Move the run in ``folder``, if there is one, aside while the block starts another there; then remove it.

    Where the block fails the old run returns. Raises `LedgerError` where a search runs in it.
    """
    if not os.path.lexists(folder):
        yield
        return
    lock = hold_folder(folder)
    try:
        with retired(folder):
            yield
    finally:
        lock.release(force=True)
