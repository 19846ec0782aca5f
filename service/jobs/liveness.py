"""Is a job's process alive? The lock on its job file says so, which it holds from before it begins until it ends."""

import fcntl
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from kinship.output import output_file
from search.ledger.location import PROBED, is_held

LOCK, PROCESS = "lock", "process.json"


def take(folder: Path) -> int | None:
    """A descriptor that holds the lock of the job in ``folder``; None where another process holds it.

    Whoever inherits it holds the lock, too: so a job has it before its first instruction.
    """
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    until = time.monotonic() + PROBED
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > until:  # somebody only looking is gone by then
                os.close(file)
                return None
            time.sleep(0.02)


def is_alive(folder: Path) -> bool:
    """Whether a process of the job in ``folder`` is there."""
    return is_held(folder / LOCK)


def sign(folder: Path) -> None:
    """Called by a job's process: leave word who it is."""
    with output_file(folder / PROCESS, force=True) as partial:
        partial.write_text(json.dumps({"pid": os.getpid(), "began": began(os.getpid())}), encoding="utf-8")


def send(folder: Path, number: signal.Signals) -> bool:
    """Send a signal to the group of the job's process; False where that is not there any more.

    A number alone may by now be another's: the process must hold the lock and have begun when it said.
    """
    try:
        signed = json.loads((folder / PROCESS).read_text(encoding="utf-8"))
        pid, at = int(signed["pid"]), signed["began"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if pid <= 1 or not is_alive(folder) or at is None or began(pid) != at:
        return False
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)  # it leads a group of its own
        return True
    return False


def began(pid: int) -> str | None:
    """When a process began, to be compared with itself; None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[19]  # clock ticks since boot: proc(5), field 22
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip() or None
