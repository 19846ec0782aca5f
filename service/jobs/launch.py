"""A job's process: ``python -P -m service.jobs.launch FOLDER ATTEMPT LOCK``, a session of its own.

It runs one ``kinship`` command. What that makes goes into ``FOLDER/attempt-N``, which becomes ``FOLDER/result`` when
the command has succeeded, and never else; how it ended otherwise is said in ``FOLDER/ended.json``.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from kinship.errors import KinshipError
from kinship.output import output_file
from service import console
from service.jobs.folder import ARGUMENTS, ENDED, OUTPUT, PROGRESS, RESULT, attempt_folder, placed
from service.jobs.liveness import sign

EVERY = 0.5  # seconds between two notes of progress


def main(folder: Path, attempt: int, lock: int) -> int:
    """Run the job in ``folder``; returns the exit code."""
    os.set_inheritable(lock, False)  # what the command starts may outlive it
    interrupted = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)  # a server in a shell's background passes on that it is ignored
    error: dict[str, Any] = {}
    try:
        sign(folder)
        console.listeners.append(_Notes(folder / PROGRESS))
        work = attempt_folder(folder, attempt)
        arguments = json.loads((folder / ARGUMENTS).read_text(encoding="utf-8"))
        code = _run(placed(arguments, folder, work))
    except KinshipError as failed:
        code, error = 1, {"message": failed.message, "hint": failed.hint}
        console.print_error(failed, as_json=False)
    except KeyboardInterrupt:
        code = 130
    except BaseException as failed:
        code, error = 70, {"message": f"{type(failed).__name__}: {failed}", "hint": "The log has the traceback."}
        traceback.print_exc()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.flush()
    if code == 0 or (code == 1 and not error and not interrupted and _answered(work)):
        os.replace(work, folder / RESULT)
        return 0
    with output_file(folder / ENDED, force=True) as partial:
        partial.write_text(json.dumps({"attempt": attempt, "code": code, "interrupted": interrupted, **error}))
    return code


def _run(arguments: list[str]) -> int:
    from service.app import app

    sys.argv = ["kinship", *arguments]
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _answered(work: Path) -> bool:
    """Whether there is an answer, though some of what it was asked about failed."""
    try:
        answer = json.loads((work / OUTPUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(answer, dict) and "schema" in answer


class _Notes:
    """Leaves word of the progress, now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = 0.0

    def __call__(self, stage: str, done: int, total: int, unit: str) -> None:
        if time.monotonic() - self._last < EVERY:
            return
        self._last = time.monotonic()
        partial = self._path.with_suffix(".partial")  # of no worth after a crash: not synced
        partial.write_text(json.dumps({"stage": stage, "done": done, "total": total or 0, "unit": unit}))
        os.replace(partial, self._path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
