"""Writing results: nothing existing is lost, nothing half-written is left under a final name."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kinship.errors import OutputExists, OutputNotWritable

LONGEST_STEM = 200  # bytes; file systems take names of 255


def require_writable(path: Path, *, force: bool = False) -> None:
    """Raise `OutputExists` or `OutputNotWritable` now rather than after long work."""
    try:
        exists = path.exists()
    except OSError as error:  # such as a name that is too long
        raise OutputNotWritable(f"{path} cannot be written: {error.strerror}.", hint="Choose another name.") from None
    if exists and not force:
        raise OutputExists(f"{path} exists already.", hint="Choose another name, or replace it with --force.")
    place = path.absolute().parent
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise OutputNotWritable(f"{path} cannot be written: no permission in {place}.", hint="Choose another folder.")


@contextmanager
def output_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to; it takes the name ``path`` when the block succeeds."""
    with _staged(path, force) as partial:
        yield partial
        _sync(partial)
        os.replace(partial, path)
    _sync(path.parent)


@contextmanager
def output_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` to fill; it takes the name ``path`` when the block succeeds.

    With ``force`` an existing folder stays in place until the new one is complete.
    """
    with _staged(path, force) as partial:
        partial.mkdir()
        yield partial
        for item in sorted(partial.rglob("*")):
            _sync(item)
        if path.exists():
            retired = partial.with_suffix(".retired")
            os.replace(path, retired)
            try:
                os.replace(partial, path)
            except OSError:
                os.replace(retired, path)
                raise
            _remove(retired)
        else:
            os.replace(partial, path)
    _sync(path.parent)


@contextmanager
def _staged(path: Path, force: bool) -> Iterator[Path]:
    require_writable(path, force=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputNotWritable(
            f"{path.parent} cannot be made: {error.strerror}.", hint="Choose another folder."
        ) from None
    _clear_abandoned(path)
    require_writable(path, force=force)
    partial = path.parent / f".{_stem(path.name)}.{os.getpid()}.partial"
    try:
        yield partial
    except OSError as error:
        raise OutputNotWritable(
            f"Writing {path} failed: {error.strerror or error}.", hint="Nothing was left behind; free space and retry."
        ) from error
    finally:
        _remove(partial)


def _stem(name: str) -> str:
    """What stands for ``name`` in the name of a file beside it, which has to be longer than it."""
    raw = os.fsencode(name)
    return name if len(raw) <= LONGEST_STEM else hashlib.sha256(raw).hexdigest()


def _clear_abandoned(path: Path) -> None:
    """Remove what writers that are no longer alive left beside ``path``.

    One that died between its two renames has retired the old folder and not named the new one: the old one returns.
    """
    pattern = re.compile(re.escape(f".{_stem(path.name)}.") + r"(\d+)\.(partial|retired)")
    for sibling in list(path.parent.iterdir()):
        match = pattern.fullmatch(sibling.name)
        if match is None or _alive(int(match[1])):
            continue
        if match[2] == "retired" and not path.exists():
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
