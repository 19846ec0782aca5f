"""Folders that stand in for those of the user that cannot be written, as in a container that runs as another user."""

import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

# Where libraries keep what they have made, by the variable that names another place.
_CACHES = {"HF_DATASETS_CACHE": "~/.cache/huggingface/datasets", "MPLCONFIGDIR": "~/.config/matplotlib"}


def stand_in(name: str) -> Path:
    """A folder for temporary files that is this user's alone, since what lies in some of them is run.

    It is the same one at each call, unless another user has it. Raises `OSError` where there is no place for any.
    """
    user = os.getuid()
    folder = Path(tempfile.gettempdir(), f"kinship-{name}-{user}")
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != user or status.st_mode & 0o077:
            folder = Path(tempfile.mkdtemp(prefix=f"kinship-{name}-"))
    return folder


def provide_caches(places: Mapping[str, str] = _CACHES) -> None:
    """Send libraries that would fail, or complain, for want of a cache folder to one that can be written."""
    if os.environ.get("HF_HOME") or os.environ.get("XDG_CACHE_HOME"):
        places = {variable: place for variable, place in places.items() if variable != "HF_DATASETS_CACHE"}
    for variable, place in places.items():
        if variable not in os.environ and not can_be_written(Path(os.path.expanduser(place))):
            with suppress(OSError):  # then the library itself says what it wants
                os.environ[variable] = str(stand_in(variable.lower()))


def can_be_written(folder: Path) -> bool:
    """Whether ``folder`` is there and may be written to, or may be made; no for ``~`` of an unknown user."""
    if not folder.is_absolute():
        return False
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
