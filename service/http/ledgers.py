"""Ledgers as a server opens them, time and again: databases once; files found whole a moment ago are not read again."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL, Engine

from kinship.errors import LedgerError
from search.ledger.database import is_run_held, open_database, run_state, runs_in
from search.ledger.ledger import Ledger
from search.ledger.location import LedgerLocation, identity

SECONDS = 30.0  # for how long a file that was compared with its checksums counts as whole, whatever is added to it
TICK = 50_000_000  # ns within which a file may be written twice and look the same
KEPT = 256  # files that are remembered so

Stamp = tuple[int, int, int] | None


@dataclass
class Ledgers:
    """Opens ledgers to be read. Safe to be used by several threads; what is opened is of one."""

    _engines: dict[URL, Engine] = field(default_factory=dict)
    _whole: "OrderedDict[Path, tuple[object, float]]" = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _opening: threading.Lock = field(default_factory=threading.Lock)  # may take as long as a server does not answer

    def open(self, location: LedgerLocation) -> Ledger:
        """The ledger there, to be closed. Raises `LedgerError` where it cannot be read, or is found damaged."""
        file = location.file
        if file is None:
            return Ledger(location, engine=self._engine(location))
        now, which = time.monotonic(), identity(file)
        if which is None:  # opening it would make it
            raise LedgerError(f"{file} is not there.", hint="Put the ledger back.")
        with self._lock:
            known, until = self._whole.get(file, (None, 0.0))
        if known == which and now < until:
            return Ledger(location, damaged=True)
        ledger = Ledger(location)
        with self._lock:
            self._whole[file] = which, now + SECONDS
            while len(self._whole) > KEPT:
                self._whole.popitem(last=False)
        return ledger

    def state(self, location: LedgerLocation) -> tuple[object, ...]:
        """Changes when the ledger does. Raises `LedgerError` where a database cannot be asked."""
        file = location.file
        if file is None:
            return run_state(location, self._engine(location))
        stamps = [_stamp(Path(f"{file}{suffix}")) for suffix in ("", "-wal")]
        fresh = any(stamp is not None and abs(time.time_ns() - stamp[0]) < TICK for stamp in stamps)
        return (*stamps, time.monotonic() if fresh else None)

    def is_held(self, location: LedgerLocation) -> bool:
        """Whether a search works on the run in a database, of any machine; not of a file, which its folder tells."""
        return location.file is None and is_run_held(location, self._engine(location))

    def runs_in(self, database: LedgerLocation) -> list[str]:
        """The names of the runs in a database."""
        return runs_in(database, self._engine(database))

    def close(self) -> None:
        """Close every database."""
        with self._opening:
            for engine in self._engines.values():
                engine.dispose()
            self._engines.clear()

    def _engine(self, location: LedgerLocation) -> Engine:
        with self._opening:
            engine = self._engines.get(location.url)
            if engine is None:
                engine = self._engines[location.url] = open_database(location)
            return engine


def _stamp(path: Path) -> Stamp:
    try:
        state = path.stat()
    except OSError:
        return None
    if not state.st_size:  # a reader's own, for as long as it reads
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino
