"""The command line in processes that have nothing left to import, for tests that start many to kill them.

Most of what a short command takes is the import of torch and transformers. `multiprocessing`'s server imports them once
and starts no thread; its children begin from there, and are else as real as any process, to be killed at any moment.
What depends on the start itself (hash seeds, limits, instruction sets) is tested on programs that are started.
"""

import multiprocessing
import os
import sys
import tempfile
from multiprocessing.connection import Connection

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "datasets",
        "evaluators.harness",
        "lm_eval.models.huggingface",
        "lm_eval.tasks",
        "matplotlib.figure",
        "merging.merge",
        "search.migrations",
        "service.app",
        "service.pages.method_comparison",
        "service.pages.run_folder",
        "tests.forked",  # whose place its children would not find where pytest was called by its bare name
        "transformers.models.auto.modeling_auto",
        "transformers.models.llama.modeling_llama",
    ]
)


class Forked:
    """``kinship WORDS...`` in a process of its own, which has begun; used as a `subprocess.Popen` is.

    ``stdout`` yields what it prints, as text. It holds no file of this process beside.
    """

    def __init__(self, *words: object, **environment: str) -> None:
        read, write = os.pipe()
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - as long as this is there
        said = os.dup(self._said.fileno())
        with Connection(write, readable=False) as stdout, Connection(said, readable=False) as stderr:
            arguments = (stdout, stderr, ["kinship", *map(str, words)], os.environ | environment)
            self._process = _SERVER.Process(target=_become, args=arguments)
            self._process.start()
        self.stdout = os.fdopen(read, encoding="utf-8")
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def said(self) -> str:
        """What it has written to standard error."""
        self._said.seek(0)
        return self._said.read()

    def send_signal(self, number: int) -> None:
        """Send it, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Its exit code, or the negative number of the signal that ended it; None while it goes on."""
        return self._process.exitcode

    def wait(self) -> int:
        """Wait for its end; returns as `poll` does."""
        self._process.join()
        code = self.poll()
        assert code is not None
        return code

    def communicate(self) -> str:
        """What it prints until its end."""
        with self.stdout:
            text = self.stdout.read()
        self.wait()
        return text


def _become(stdout: Connection, stderr: Connection, argv: list[str], environment: dict[str, str]) -> None:
    """What the server's child does."""
    from service.cli import main

    os.environ.clear()
    os.environ.update(environment)
    for connection, number in ((stdout, 1), (stderr, 2)):
        with connection:
            os.dup2(connection.fileno(), number)
    # What the server has found of its own at these places, whether they can be sought for one, is not true of these.
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
    sys.argv = argv
    main()
