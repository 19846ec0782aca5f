"""A Postgres server of the tests' own, where its programs are installed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest


def programs() -> Path | None:
    """The folder with `initdb` and `pg_ctl`; the newest of several versions."""
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name.split(".")[0]))
    return Path(found).parent if found else folders[-1] if folders else None


@dataclass
class Server:
    """A running server, reached by a socket in ``folder`` alone."""

    folder: Path
    call: Callable[..., None]
    _number: Iterator[int] = field(default_factory=count)

    def start(self) -> None:
        """Have it there, again."""
        options = f"-F -c listen_addresses='' -c unix_socket_directories='{self.folder}'"
        self.call("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """End it at once, as a crash would."""
        self.call("pg_ctl", "-m", "immediate", "stop")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://kinship@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        import psycopg

        name = f"test{next(self._number)}"
        with psycopg.connect(f"host={self.folder} user=kinship dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        return self.url(name)


@contextmanager
def serving() -> Iterator[Server]:
    """Start a server, stop it in the end; skips the test where that cannot be done."""
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    bin = programs()
    if bin is None:
        pytest.skip("Postgres is not installed: there is no initdb")
    user = None
    if os.geteuid() == 0:  # the server refuses to run as root
        try:
            user = pwd.getpwnam("postgres").pw_name
        except KeyError:
            pytest.skip("Postgres does not run as root, and there is no user 'postgres'")
    folder = Path(tempfile.mkdtemp(prefix="kinship-pg-", dir="/tmp"))  # a socket's path must be short
    if user:
        shutil.chown(folder, user)

    def call(program: str, *arguments: str) -> None:
        command = [str(bin / program), "-D", str(folder / "data"), *arguments]
        done = subprocess.run(command, user=user, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    try:
        call("initdb", "--username", "kinship", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
        server = Server(folder, call)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
