"""Setups that do as they are told: raise, hang, die. They try pools of workers, here and in tests elsewhere."""

import os
import resource
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from evaluators.workers.base import Handle
from kinship.errors import EvaluationFailed, MalformedCheckpoint


@dataclass(frozen=True)
class Scripted:
    """A setup whose handle does what a payload says: the name of one of its methods, and an argument."""

    def __call__(self) -> Handle:
        """The handle."""
        return lambda payload: getattr(self, payload[0])(payload[1])

    def square(self, number: float) -> float:
        """A result that depends on the payload alone."""
        return number * number

    def nothing(self, _: object) -> None:
        """A result that is easily taken for none."""

    def sleep(self, seconds: float) -> float:
        """Takes its time."""
        time.sleep(seconds)
        return seconds

    def fail(self, message: str) -> None:
        """An error of the evaluator's own."""
        raise EvaluationFailed(message)

    def bug(self, message: str) -> None:
        """An error that nobody expected."""
        print("before the bug")
        raise ZeroDivisionError(message)

    def leave(self, code: int) -> None:
        """What some libraries do where they should raise."""
        sys.exit(code)

    def bug_until(self, path: str) -> str:
        """Raises the first time, and leaves a note in ``path``."""
        if not _first_time(path):
            return "well"
        raise ZeroDivisionError("once")

    def exit(self, code: int) -> None:
        """The end of the process, without ado."""
        print("before the exit")
        os._exit(code)

    def exit_until(self, path: str) -> str:
        """Ends the process the first time, and leaves a note in ``path``."""
        if _first_time(path):
            os._exit(1)
        return "well"

    def kill_itself(self, number: int) -> None:
        """As the kernel does where memory runs out."""
        os.kill(os.getpid(), number)
        time.sleep(3600)

    def allocate(self, size: int) -> None:
        """More memory than there may be."""
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size // 2, limits[1]))
        try:
            bytearray(size)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)

    def environment(self, names: list[str]) -> list[str | None]:
        """The variables that the worker was given."""
        return [os.environ.get(name) for name in names]

    def number(self, _: object) -> int:
        """Of the process."""
        return os.getpid()

    def wait_for_end(self, path: str) -> str:
        """The first time, writes the number of the process to ``path`` and waits to be killed."""
        if not _first_time(path, str(os.getpid())):
            return "well"
        time.sleep(3600)
        return "nobody came"

    def hang_with_child(self, path: str) -> None:
        """Starts a process, writes its number to ``path``, and waits to be killed."""
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        _first_time(path, str(child.pid))
        time.sleep(3600)

    def exit_with_fork(self, code: int) -> None:
        """Ends, but leaves a copy of itself behind, which holds all that it held."""
        if os.fork() == 0:
            time.sleep(3600)
        os._exit(code)

    def unpicklable(self, _: object) -> object:
        """A result that cannot travel."""
        return lambda: None


def _first_time(path: str, note: str = "") -> bool:
    if os.path.exists(path):
        return False
    Path(f"{path}.partial").write_text(note)
    os.rename(f"{path}.partial", path)
    return True


def broken_setup() -> Handle:
    """A setup that raises."""
    raise FileNotFoundError("no such founder")


def refusing_setup() -> Handle:
    """A setup that raises an error meant for users."""
    raise MalformedCheckpoint("The founder is no checkpoint.", hint="Download it again.")


def deadly_setup() -> Handle:
    """A setup that ends the process."""
    print("the founder is too large")
    os._exit(9)


def hanging_setup() -> Handle:
    """A setup that does not end."""
    time.sleep(3600)
    raise AssertionError


@dataclass(frozen=True)
class CountedSetup:
    """A setup that leaves a file in ``folder`` each time it runs, and works ``seconds`` on each payload."""

    folder: str
    seconds: float = 0

    def __call__(self) -> Handle:
        """A handle that gives payloads back, with the number of its process."""
        (Path(self.folder) / f"{os.getpid()}-{uuid.uuid4().hex}").touch()
        return self.work

    def work(self, payload: object) -> tuple[object, int]:
        """What the handle does."""
        time.sleep(self.seconds)
        return payload, os.getpid()


def is_alive(number: int) -> bool:
    """Whether there is a process of that number, zombies aside (Linux)."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{number}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
