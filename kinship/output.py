"""Writing results: nothing existing is lost, nothing half-written is left under a final name."""

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kinship.errors import OutputExists, OutputNotWritable

LONGEST_STEM = 200  # bytes; file systems take names of 255

Foreign = Callable[[Path], str | None]
"""What in a folder is not ours, by its path in there, so that the folder is not replaced; None where all is ours."""


def anything(folder: Path) -> str | None:
    """The `Foreign` of folders that are never replaced, unless they are empty."""
    return next((entry.name for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)), None)


def require_writable(
    path: Path, *, force: bool = False, folder: Foreign | None = None, inputs: Iterable[Path] = ()
) -> None:
    """Raise `OutputExists` or `OutputNotWritable` now rather than after long work.

    force: what exists may be replaced: a regular file, or with ``folder`` a folder in which nothing is foreign. Never
    replaced are devices and pipes, folders behind links, and what is, holds or belongs to one of ``inputs``.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        exists = False
    except OSError as error:
        raise OutputNotWritable(f"{path} cannot be written: {error.strerror}.", hint="Choose another name.") from None
    else:
        exists = True
    if exists:
        if not force:
            link = f", a link to {os.readlink(path)}" if path.is_symlink() else ""
            raise OutputExists(f"{path} exists already{link}.", hint="Choose another name, or replace it with --force.")
        _require_replaceable(path, folder, inputs)
    _require_place(path)


def _require_place(path: Path) -> None:
    place = path.absolute().parent
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise OutputNotWritable(f"{path} cannot be written: no permission in {place}.", hint="Choose another folder.")


def _require_replaceable(path: Path, folder: Foreign | None, inputs: Iterable[Path] = ()) -> None:
    """Raise `OutputExists` where ``path``, which exists, is not ours to replace."""
    target = path.resolve()
    kind = _kind_of(path)
    if kind == "nothing":  # a link that leads nowhere: the link is replaced
        return
    if path.is_symlink() and target.is_dir():
        raise _kept(path, f"it is a link to the folder {target}", "Name that folder itself, or remove the link.")
    if kind != ("file" if folder is None else "folder"):
        wanted = "file" if folder is None else "folder"
        raise _kept(path, f"it is a {kind}, and a {wanted} would be written", "Choose another name.")
    for given in inputs:
        source = Path(os.path.realpath(given))
        if source.is_relative_to(target) or (source.exists() and source.samefile(target)):
            raise _kept(path, f"the input {given} is {'it' if source == target else 'in it'}", "Choose another name.")
        if folder is None and target.is_relative_to(source):
            raise _kept(path, f"it belongs to the input {given}", "Choose another name.")
    if folder is None:
        return
    if Path.cwd().is_relative_to(target):
        raise _kept(path, "it is where you are working", "Choose another name.")
    found = folder(path) if any(path.iterdir()) else None
    if found is not None:
        raise _kept(
            path, f"{found} in it was not written by kinship as part of such a folder", "Choose another, or remove it."
        )


def _kept(path: Path, reason: str, hint: str) -> OutputExists:
    return OutputExists(f"{path} is not replaced: {reason}.", hint=hint)


def _kind_of(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except OSError:
        return "nothing"
    if stat.S_ISREG(mode):
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "pipe" if stat.S_ISFIFO(mode) else "device or socket"


@contextmanager
def output_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to; it takes the name ``path`` when the block succeeds.

    A link is replaced itself; what it leads to stays.
    """
    with _staged(path, force, None) as partial:
        yield partial
        _sync(partial)
        require_writable(path, force=force)  # what has come there meanwhile counts, too
        os.replace(partial, path)
    _sync(path.parent)


@contextmanager
def output_folder(path: Path, *, force: bool = False, foreign: Foreign = anything) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` to fill; it takes the name ``path`` when the block succeeds.

    With ``force`` an existing folder in which nothing is ``foreign`` stays in place until the new one is complete.
    """
    path = path if path.name not in ("", "..") else path.resolve()
    with _staged(path, force, foreign) as partial:
        partial.mkdir()
        yield partial
        for item in sorted(partial.rglob("*")):
            _sync(item)
        require_writable(path, force=force, folder=foreign)
        with retired(path):
            os.replace(partial, path)
    _sync(path.parent)


@contextmanager
def retired(path: Path) -> Iterator[None]:
    """Move ``path``, where it exists, aside while the block puts something else there, and remove it afterwards.

    Where the block fails, what it put there is removed and the old one returns.
    """
    if not os.path.lexists(path):
        yield
        return
    aside = path.parent / f".{_stem(path.name)}.{os.getpid()}.retired"
    os.replace(path, aside)
    try:
        yield
    except BaseException:
        _remove(path)
        os.replace(aside, path)
        raise
    _remove(aside)


@contextmanager
def _staged(path: Path, force: bool, folder: Foreign | None) -> Iterator[Path]:
    _require_place(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputNotWritable(
            f"{path.parent} cannot be made: {error.strerror}.", hint="Choose another folder."
        ) from None
    clear_abandoned(path)
    require_writable(path, force=force, folder=folder)
    partial = path.parent / f".{_stem(path.name)}.{os.getpid()}.partial"
    try:
        yield partial
    except OSError as error:
        large = "allow larger files (ulimit -f), or choose a file system that takes them, and retry."
        raise OutputNotWritable(
            f"Writing {path} failed: {error.strerror or error}.",
            hint=f"Nothing was left behind; {large if error.errno == errno.EFBIG else 'free space and retry.'}",
        ) from error
    finally:
        _remove(partial)


def _stem(name: str) -> str:
    """What stands for ``name`` in the name of a file beside it, which has to be longer than it."""
    raw = os.fsencode(name)
    return name if len(raw) <= LONGEST_STEM else hashlib.sha256(raw).hexdigest()


def clear_abandoned(path: Path) -> None:
    """Remove what writers that are no longer alive left beside ``path``.

    One that died between its two renames has retired the old folder and not named the new one: the old one returns.
    """
    pattern = re.compile(re.escape(f".{_stem(path.name)}.") + r"(\d+)\.(partial|retired)")
    for sibling in list(path.parent.iterdir()) if path.parent.is_dir() else []:
        match = pattern.fullmatch(sibling.name)
        if match is None or _alive(int(match[1])):
            continue
        if match[2] == "retired" and not os.path.lexists(path):
            os.replace(sibling, path)
        else:
            _remove(sibling)


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # an earlier process of this number, as in a container: this one writes ``path`` only now
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
