"""The folder that a server is about: the runs in it, found and looked into; what a run's id means."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from kinship.errors import KinshipError, LedgerError
from kinship.outside import is_text
from search.comparison.store import NAME as COMPARISON_NAME
from search.ledger.ledger import Ledger
from search.ledger.location import BEST, LEDGER_NAME, LOCK_NAME, POINTER_NAME, LedgerLocation, is_held, location_of
from service.http.ledgers import Ledgers
from service.http.settings import ServiceSettings
from service.jobs.errors import NotFound

SECONDS = 2.0  # for how long what was found is believed
IN_DATABASE = "~2"  # begins the id of a run that has no folder here


@dataclass(frozen=True)
class RunPlace:
    """A run by its id, in a folder or in the service's database alone."""

    id: str
    location: LedgerLocation
    folder: Path | None = None
    ledgers: Ledgers = field(default_factory=Ledgers, repr=False, compare=False)

    @property
    def name(self) -> str:
        """What `service.answers` calls it: its folder, or URL#NAME with the password it may need."""
        if self.folder is not None:
            return str(self.folder)
        return f"{self.location.url.render_as_string(hide_password=False)}#{self.location.run}"

    @property
    def is_there(self) -> bool:
        """Whether it has a ledger yet."""
        return self.location.file is None or self.location.file.exists()

    @property
    def state(self) -> tuple[object, ...]:
        """Changes when its ledger does; of a database that cannot be asked it always differs."""
        try:
            return self.ledgers.state(self.location)
        except LedgerError:
            return (None, time.monotonic())  # opening it tells what is wrong

    @property
    def held(self) -> bool:
        """Whether a search works on it, of this machine or, in a database, of any."""
        if self.folder is not None and is_held(self.folder / LOCK_NAME):
            return True
        try:
            return self.ledgers.is_held(self.location)
        except LedgerError:
            return False  # nobody can tell

    def open(self) -> Ledger:
        """Its ledger, to be read and closed. Raises `LedgerError`."""
        return self.ledgers.open(self.location)


@dataclass
class Workspace:
    """What lies in ``settings.folder``. Safe to be used by several threads."""

    settings: ServiceSettings
    ledgers: Ledgers = field(default_factory=Ledgers)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _found: Mapping[str, RunPlace] = field(default_factory=dict)
    _models: tuple[Path, ...] = ()
    _comparisons: tuple[Path, ...] = ()
    _until: float = -1.0

    @property
    def folder(self) -> Path:
        """The workspace."""
        return self.settings.folder

    def runs(self) -> Mapping[str, RunPlace]:
        """Every run by id, those that came a moment ago, too. Cost: a walk through the folder, at most each 2 s."""
        with self._lock:
            if time.monotonic() > self._until:
                self._look()
            return self._found

    def models(self) -> tuple[Path, ...]:
        """Every folder with a model's weights, sorted."""
        self.runs()
        return self._models

    def comparisons(self) -> tuple[Path, ...]:
        """Every folder with a comparison of merge methods, sorted."""
        self.runs()
        return self._comparisons

    def run(self, id: str) -> RunPlace:
        """The run of that id. Raises `NotFound`."""
        place = self.runs().get(id)
        if place is None:
            self.forget()  # it may be new
            place = self.runs().get(id)
        if place is None:
            raise NotFound(f"There is no run {id!r} here.", hint="GET /api/v1/runs lists them.")
        return place

    def named(self, reference: str, run: Path | None) -> str:
        """A model of a run as it is named here: a path from the workspace, where it is one that is found."""
        roots = [self.folder] if run is None else [self.folder, *(run, *run.parents)]
        found = (root / reference for root in roots if (root / reference).exists())
        path = next(found, None)
        return reference if path is None else self.relative(path)

    def place_of(self, run: str) -> RunPlace:
        """Where the run in the folder ``run``, of the workspace, is or will be."""
        folder = self.folder / run
        return RunPlace(self.id_of(folder), LedgerLocation.of_file(folder / LEDGER_NAME), folder, self.ledgers)

    def forget(self) -> None:
        """Look again when asked next."""
        self._until = -1.0

    def relative(self, path: Path) -> str:
        """``path`` as it is told: from the workspace, where it lies in it."""
        path = path.absolute()
        root = self.folder.absolute()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

    def id_of(self, folder: Path) -> str:
        """The id of the run in ``folder``: its path, whose slashes are written as in a JSON Pointer (RFC 6901)."""
        return id_of_path(self.relative(folder))

    def _look(self) -> None:
        found: dict[str, RunPlace] = {}
        models: list[Path] = []
        compared: list[Path] = []
        for folder, names in _folders(self.folder):
            if LEDGER_NAME in names or POINTER_NAME in names:
                id = self.id_of(folder)
                try:
                    location = location_of(folder)
                except KinshipError:
                    location = LedgerLocation.of_file(folder / LEDGER_NAME)  # opening it tells what is wrong
                found[id] = RunPlace(id, self._with_password(location), folder, self.ledgers)
            if any(name.endswith(".safetensors") for name in names) and "config.json" in names:
                models.append(folder)
            if COMPARISON_NAME in names:
                compared.append(folder)
        if self.settings.database:
            found |= self._in_database({str(place.location) for place in found.values()})
        self._found = dict(sorted(found.items()))
        self._models = tuple(sorted(models))
        self._comparisons = tuple(sorted(compared))
        self._until = time.monotonic() + SECONDS

    def _in_database(self, known: set[str]) -> dict[str, RunPlace]:
        database = LedgerLocation.parse(self.settings.database or "", "any")
        places = (replace(database, run=run) for run in self.ledgers.runs_in(database))
        new = ((id_in_database(place.run), place) for place in places if str(place) not in known)
        return {id: RunPlace(id, place, ledgers=self.ledgers) for id, place in new}

    def _with_password(self, location: LedgerLocation) -> LedgerLocation:
        """A pointer has no password; the service's own database may need one."""
        if self.settings.database is None or location.file is not None:
            return location
        own = LedgerLocation.parse(self.settings.database, location.run)
        return own if str(own) == str(location) else location


def id_in_database(run: str) -> str:
    """The id of a run that has no folder here, by its name in the service's database."""
    return IN_DATABASE + _escaped(run)


def id_of_path(path: str) -> str:
    """The id of what lies in a folder, told from the workspace.

    >>> id_of_path("tries/first"), id_of_path(".")
    ('tries~1first', '~')
    """
    return "~" if path == "." else _escaped(path)


def _escaped(path: str) -> str:
    return path.replace("~", "~0").replace("/", "~1")


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder from ``root`` down with the names of its files; not hidden ones, not through links, not in runs.

    Not those either whose names are no text, which no address could name.
    """
    for place, folders, names in os.walk(root):
        yield Path(place), names
        if LEDGER_NAME in names or POINTER_NAME in names:
            folders[:] = [name for name in folders if name == BEST]
        folders[:] = sorted(name for name in folders if not name.startswith(".") and is_text(name))
