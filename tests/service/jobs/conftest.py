"""A workspace with models, and servers over it that can be killed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.answers.jobs import Job
from service.jobs.board import Board
from service.jobs.supervisor import Supervisor
from tests.conftest import MakeModel

BOTH = ["file", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres"))]
PATIENCE = 120  # seconds: the machine may be busy


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


@dataclass
class Servers:
    """Processes that look after a workspace as a server does, one at a time; each can be killed."""

    folder: Path
    most_starts: int = 5
    _pids: list[int] = field(default_factory=list)

    def start(self) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                board = Board(self.folder)
                with Supervisor(board, ("cpu",), self.most_starts):
                    while True:
                        time.sleep(60)
            finally:
                os._exit(1)
        self._pids.append(pid)

    def kill(self) -> None:
        pid = self._pids.pop()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def end(self) -> None:
        while self._pids:
            self.kill()


@dataclass
class Scene:
    folder: Path
    board: Board
    servers: Servers

    def submit(self) -> int:
        return self.board.submit(
            "matrix", "a matrix", ["matrix", "--base=base", "--json", "--", "one", "two"], device="light"
        ).id

    def job(self, id: int) -> Job:
        return self.board.get(id)


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path, make_model: MakeModel) -> Iterator[Scene]:
    """In a file, or in the database that the parameter ``postgres`` asks for (see `BOTH`)."""
    in_database = getattr(request, "param", "file") == "postgres"
    database = request.getfixturevalue("postgres").new_database() if in_database else None
    base = make_model("base")
    make_model("one", 1, base)
    make_model("two", 2, base)
    board = Board(tmp_path, database)
    servers = Servers(tmp_path)
    yield Scene(tmp_path, board, servers)
    servers.end()
    board.close()
