"""Workers as processes of this machine, each started afresh, in a process group and a temporary folder of its own."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from multiprocessing.connection import Pipe, wait
from pathlib import Path

from evaluators.workers.pool import WorkerLost
from evaluators.workers.serving import Report
from evaluators.workers.settings import WorkerSettings, thread_environment
from kinship.errors import WorkersFailed

# A fresh interpreter that finds the modules which this one finds. It does not import the main script again, as
# multiprocessing does, so that scripts need no guard.
PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from evaluators.workers.serving import serve; serve(int(sys.argv[2]), int(sys.argv[3]))"
)
LAST_LINES = 30
LAST_BYTES = 8192
# A crash is noticed by the end of the connection, but where a process that the worker forked still holds it: by this.
LOOK_SECONDS = 1.0


class LocalLauncher:
    """Processes with a share of the cores each, and a device where there are any."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.size = settings.local_count()
        self._devices = settings.devices
        self._threads = settings.local_threads()

    def launch(self, setup: bytes, place: int) -> "LocalWorker":
        """Start a process; raises `WorkersFailed` where the system refuses."""
        environment = thread_environment(self._threads)
        if self._devices:
            environment["CUDA_VISIBLE_DEVICES"] = str(self._devices[place % len(self._devices)])
        try:
            return LocalWorker(setup, environment)
        except OSError as error:
            raise WorkersFailed(f"No worker process can be started: {error}", hint="Ask for fewer workers.") from error

    def wait(self, workers: Sequence["LocalWorker"], timeout: float | None) -> Collection["LocalWorker"]:
        """See `Launcher.wait`."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LOOK_SECONDS if end is None else min(LOOK_SECONDS, end - time.monotonic())
            speaking = wait([worker.connection for worker in workers], max(0.0, left))
            heard = [worker for worker in workers if worker.connection in speaking or worker.has_ended()]
            if heard or left <= 0:
                return heard

    def close(self) -> None:
        """Nothing is left: each worker has cleared up behind itself."""


class LocalWorker:
    """One process. What it prints goes to a file, of which failures show the end."""

    def __init__(self, setup: bytes, environment: dict[str, str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="kinship-worker-"))
        self._output = self._folder / "output"
        self.connection, far_end = Pipe()
        far_life, self._lifeline = os.pipe()
        try:
            with self._output.open("ab") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-u", "-c", PROGRAM, json.dumps(sys.path), str(far_end.fileno()), str(far_life)],
                    pass_fds=(far_end.fileno(), far_life),
                    env=os.environ | {"TMPDIR": str(self._folder), "PYTHONFAULTHANDLER": "1"} | environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # Ctrl-C is the parent's business; and all its children die as one group
                )
        except OSError:
            self._clear()
            raise
        else:
            self.connection.send_bytes(setup)
        finally:
            far_end.close()
            os.close(far_life)

    def send(self, payload: bytes) -> None:
        """See `RemoteWorker.send`. From here on the output is that of this payload."""
        if self.has_ended():
            raise WorkerLost("it ended while it had nothing to do")
        os.truncate(self._output, 0)
        try:
            self.connection.send_bytes(payload)
        except OSError as error:
            raise WorkerLost(str(error)) from error

    def receive(self) -> Report:
        """See `RemoteWorker.receive`."""
        try:
            if not self.connection.poll():
                raise EOFError
            report: Report = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            # The connection ends a moment before the process does.
            end = time.monotonic() + LOOK_SECONDS
            while not self.has_ended() and time.monotonic() < end:
                time.sleep(0.01)
            output = self._last_lines()
            self.kill()
            raise WorkerLost(_how_it_ended(self._process.returncode), output) from None
        return report

    def has_ended(self) -> bool:
        """Whether the process has; it stays a zombie, so that its number is not given to another meanwhile."""
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def inspect(self) -> str:
        """See `RemoteWorker.inspect`: where each thread is, below what was printed before."""
        if not self.has_ended():
            os.kill(self._process.pid, signal.SIGUSR1)
            time.sleep(0.2)  # for faulthandler to write
        return self._last_lines()

    def kill(self) -> None:
        """See `RemoteWorker.kill`; the processes that it has started and its temporary folder go with it."""
        if self.connection.closed:
            return
        with suppress(ProcessLookupError, PermissionError):  # as some systems answer for a zombie
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # stuck in a driver: it ends when the kernel lets go of it
            self._process.wait(timeout=5)
        self._clear()

    def _clear(self) -> None:
        self.connection.close()
        os.close(self._lifeline)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _last_lines(self) -> str:
        with self._output.open("rb") as output:
            output.seek(max(0, self._output.stat().st_size - LAST_BYTES))
            lines = output.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LAST_LINES:])


def _how_it_ended(code: int | None) -> str:
    """An exit code in words.

    >>> _how_it_ended(3), _how_it_ended(-11)
    ('its worker ended with exit code 3', 'its worker was ended by SIGSEGV')
    """
    if code is None or code >= 0:
        return f"its worker ended with exit code {code}"
    often = ", as happens where memory runs out" if -code == signal.SIGKILL else ""
    return f"its worker was ended by {signal.Signals(-code).name}{often}"
