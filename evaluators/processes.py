"""Programs that run beside this one for a while, with what they say in a log; none outlives its time."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from kinship.errors import EvaluationFailed

LAST_LINES = 15


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process of ``command``, its output in ``log``. It and all that it started are killed at the end.

    Raises `EvaluationFailed` where it cannot be started.
    """
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
    except OSError as error:
        raise EvaluationFailed(f"{command[0]} cannot be started: {error.strerror}.") from error
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def finish(process: subprocess.Popen[bytes], what: str, log: Path, seconds: float) -> None:
    """Wait for the end; raises `EvaluationFailed` where it fails or takes longer than ``seconds``."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise EvaluationFailed(
            f"{what} took longer than {seconds:g} seconds. {last_lines(log)}",
            hint="Raise evaluate.written.seconds, or evaluate on fewer documents.",
        ) from None
    if code:
        raise EvaluationFailed(f"{what} ended with code {code}. {last_lines(log)}")


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Wait until ``url`` answers, whatever it answers; raises `EvaluationFailed` where ``process`` ends first."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EvaluationFailed(f"The server ended with code {process.returncode}. {last_lines(log)}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise EvaluationFailed(f"The server did not answer at {url} within {seconds:g} seconds. {last_lines(log)}")


def last_lines(log: Path) -> str:
    """What was said last, for an error message."""
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LAST_LINES:]
    return "It said last:\n" + "\n".join(said) if said else "It said nothing."
