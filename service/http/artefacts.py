"""Files of runs and jobs, to look at and to take away; none from anywhere else."""

import mimetypes
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from kinship.outside import is_text
from service.answers.served import Artefact, Artefacts
from service.http.backend import Backend
from service.jobs.errors import NotFound
from service.jobs.folder import RESULT

TYPES = {".yml": "application/yaml", ".safetensors": "application/octet-stream", ".csv": "text/csv"}
# What a browser shows and cannot be made to run; everything else is downloaded.
SHOWN = frozenset({"image/png", "image/svg+xml", "text/csv", "text/plain", "application/json", "application/yaml"})
HIDDEN = ("ledger.sqlite", "ledger.json")  # its password may be in the one, and everything is told of the other


def run_folder(backend: Backend, id: str) -> Path:
    """The folder of a run. Raises `NotFound`."""
    place = backend.place(id, backend.latest().get(id))
    if place.folder is None or not place.folder.is_dir():
        raise NotFound(f"The run {id} has no folder here.", hint="It is in the database alone, or has not begun.")
    return place.folder


def job_folder(backend: Backend, id: int) -> Path:
    """The folder of what a job made. Raises `NotFound`."""
    job = backend.jobs.get(id)
    folder = backend.jobs.place(job.id) / RESULT
    if not folder.is_dir():
        raise NotFound(f"Job {id} has made nothing yet.", hint="Wait until it is done.")
    return folder


def list_files(folder: Path) -> Artefacts:
    """Every file in ``folder`` that may be taken away."""
    files = sorted(_files(folder))
    return Artefacts(files=[Artefact(path=path, bytes=size, type=type_of(path)) for path, size in files])


def find(folder: Path, path: str) -> Path:
    """The file at ``path`` in ``folder``. Raises `NotFound` for anything but a plain file below it."""
    missing = NotFound(f"There is no file {path[:200]!r} here.", hint="The list of files is one level up.")
    if is_hidden(path):
        raise missing
    file = folder / path
    try:
        inside = Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))
        if not (inside and file.is_file()):
            raise missing
    except (OSError, ValueError):
        raise missing from None
    return file


def is_hidden(path: str) -> bool:
    """Whether nothing at ``path``, below a run's or a job's folder, is told of."""
    parts = path.split("/")
    odd = "\0" in path or "\\" in path or any(part.startswith(".") or not part for part in parts)
    return odd or parts[0].startswith(HIDDEN)


def type_of(path: str) -> str:
    """The media type of a file, by its name."""
    return TYPES.get(Path(path).suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(place) / name
            path = file.relative_to(folder).as_posix()
            if name.startswith(".") or (file.parent == folder and name.startswith(HIDDEN)) or not is_text(path):
                continue
            try:
                state = file.lstat()
            except FileNotFoundError:  # put elsewhere meanwhile, as a search does
                continue
            if stat.S_ISREG(state.st_mode):
                yield path, state.st_size
