"""A disk that is full from the n-th write into one folder on, for everything that Python code writes with."""

import builtins
import errno
import io
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WRITING = ("INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "REPLACE")


class FullDisk:
    """Counts the writes below ``folder``; from number ``last`` on (0: the first), each fails."""

    def __init__(self, folder: Path, last: int) -> None:
        self.folder, self.last, self.count = os.path.realpath(folder), last, 0

    def write(self, path: object) -> None:
        """One write to ``path``, a name or a descriptor."""
        name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.path.realpath(os.fspath(path))  # type: ignore[call-overload]
        if not str(name).startswith(self.folder):
            return
        self.count += 1
        if self.count > self.last:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), None if isinstance(path, int) else str(name))


@contextmanager
def full_disk(folder: Path, last: int) -> Iterator[FullDisk]:
    """Within, the disk of ``folder`` has room for ``last`` writes."""
    disk = FullDisk(folder, last)
    with pytest.MonkeyPatch.context() as patch:
        for module in (builtins, io):
            patch.setattr(module, "open", _opening(disk, io.open))
        for name in ("write", "pwrite", "ftruncate", "truncate", "mkdir"):
            patch.setattr(os, name, _counted(disk, getattr(os, name)))
        patch.setattr(os, "open", _opening_descriptor(disk, os.open))
        for module in (sqlite3, sqlite3.dbapi2):
            patch.setattr(module, "connect", _connecting(disk, sqlite3.dbapi2.connect))
        yield disk


def _counted(disk: FullDisk, call: Any) -> Any:
    def counted(path: Any, *arguments: Any, **options: Any) -> Any:
        disk.write(path)
        return call(path, *arguments, **options)

    return counted


def _opening_descriptor(disk: FullDisk, call: Any) -> Any:
    def opened(path: Any, flags: int, *arguments: Any, **options: Any) -> Any:
        if flags & os.O_CREAT:
            disk.write(path)
        return call(path, flags, *arguments, **options)

    return opened


def _opening(disk: FullDisk, call: Any) -> Any:
    class File(io.FileIO):
        def write(self, data: Any) -> Any:
            disk.write(self.fileno())
            return super().write(data)

    def opened(file: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **options: Any) -> Any:
        if not set(mode) & set("wax+") or isinstance(file, int) or buffering == 0 or options.get("opener"):
            return call(file, mode, buffering, *arguments, **options)
        raw = File(file, mode.replace("b", "").replace("t", ""))
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *arguments, **options)

    return opened


def _connecting(disk: FullDisk, call: Any) -> Any:
    class Cursor(sqlite3.Cursor):
        def execute(self, query: str, *arguments: Any) -> Any:
            self.connection.write(query)  # type: ignore[attr-defined]
            return super().execute(query, *arguments)

        def executemany(self, query: str, *arguments: Any) -> Any:
            self.connection.write(query)  # type: ignore[attr-defined]
            return super().executemany(query, *arguments)

    class Connection(sqlite3.Connection):
        path = ""

        def write(self, query: str) -> None:
            if query.lstrip().upper().startswith(WRITING):
                try:
                    disk.write(self.path)
                except OSError:
                    error = sqlite3.OperationalError("database or disk is full")
                    error.sqlite_errorname, error.sqlite_errorcode = "SQLITE_FULL", sqlite3.SQLITE_FULL
                    raise error from None

        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def execute(self, query: str, *arguments: Any) -> Any:
            return self.cursor().execute(query, *arguments)

        def executemany(self, query: str, *arguments: Any) -> Any:
            return self.cursor().executemany(query, *arguments)

    def connected(path: Any, *arguments: Any, **options: Any) -> Any:
        connection = call(path, *arguments, **(options | {"factory": Connection}))
        connection.path = str(path)
        return connection

    return connected
