"""The far side of a pool: what a worker does and reports, and how a process of this machine serves as one.

`Worker` and its `Report` are common to local processes and Ray actors. `serve` is what a local process runs: a worker
on a connection, which ends, with all that it has started, when its parent does.
"""

import faulthandler
import os
import pickle
import shutil
import signal
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal

from evaluators.workers.base import Handle, words
from kinship.errors import KinshipError


@dataclass(frozen=True)
class Report:
    """What a worker says: once ``started``, then ``ready`` or ``unusable``, then ``done`` or ``raised`` per payload.

    ``content``: the pickled result, or the `KinshipError` of a setup. ``message``, ``traceback``: what went wrong.
    """

    kind: Literal["started", "ready", "unusable", "done", "raised"]
    content: bytes = b""
    message: str = ""
    traceback: str = ""


class Worker:
    """A setup that is run once, then payloads one by one. It never raises: whatever happens becomes a report."""

    def __init__(self) -> None:
        self._handle: Handle | None = None

    def prepare(self, setup: bytes) -> Report:
        """Run the pickled ``setup``."""
        try:
            self._handle = pickle.loads(setup)()
        except BaseException as error:
            known = isinstance(error, KinshipError)  # needs no traceback, and travels as it is
            return Report(
                "unusable",
                content=pickle.dumps(error) if known else b"",
                message=words(error),
                traceback="" if known else traceback.format_exc(),
            )
        return Report("ready")

    def answer(self, payload: bytes) -> Report:
        """Handle the pickled ``payload``."""
        assert self._handle is not None
        try:
            return Report("done", pickle.dumps(self._handle(pickle.loads(payload))))
        except BaseException as error:  # SystemExit too: the worker is to stay
            return Report("raised", message=words(error), traceback=traceback.format_exc())


def serve(connection: int, lifeline: int) -> None:
    """Answer on the file descriptor ``connection``; ``lifeline`` is a pipe that ends with the parent.

    First comes the pickled setup, then payloads. On SIGUSR1 all threads write to stderr where they are.
    The process must lead a process group and have a TMPDIR of its own, which end with it.
    """
    assert os.getpgrp() == os.getpid()
    for descriptor in (connection, lifeline):
        os.set_inheritable(descriptor, False)
    faulthandler.register(signal.SIGUSR1)
    watcher = threading.Thread(target=_end_with_parent, args=(lifeline, os.environ["TMPDIR"]), daemon=True)
    watcher.start()
    parent = Connection(connection)
    worker = Worker()
    try:
        parent.send_bytes(pickle.dumps(Report("started")))
        parent.send_bytes(pickle.dumps(worker.prepare(parent.recv_bytes())))
        while True:
            parent.send_bytes(pickle.dumps(worker.answer(parent.recv_bytes())))
    except (EOFError, OSError):  # the parent is gone
        watcher.join()


def _end_with_parent(lifeline: int, folder: str) -> None:
    """Clear up what a killed parent cannot, then kill this process and all that it has started."""
    os.read(lifeline, 1)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)
