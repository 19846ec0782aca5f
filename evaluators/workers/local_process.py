"""What runs in a local worker process: payloads in, reports out, until the parent is gone."""

import faulthandler
import os
import pickle
import shutil
import signal
import threading
from multiprocessing.connection import Connection

from evaluators.workers.serving import Report, Worker


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
