"""Files that many readers hold open, so many at once as the process may have and no more."""

import os
import resource
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock


@dataclass
class _Open:
    descriptor: int
    users: int = 0


class OpenFiles:
    """Descriptors for reading, kept for the next time; beyond ``most`` the one unused for longest is closed.

    More than ``most`` are open only while so many are in use at once. For any number of threads.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._files: OrderedDict[tuple[object, Path], _Open] = OrderedDict()
        self._owned: defaultdict[object, set[Path]] = defaultdict(set)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._files)

    @contextmanager
    def use(self, owner: object, file: Path) -> Iterator[int]:
        """Yield a descriptor of ``file`` that stays open within the block; each ``owner`` has one of its own."""
        key = (owner, file)
        with self._lock:
            found = self._files.get(key)
            if found is None:
                self._close_idle(self._most - 1)
                found = self._files[key] = _Open(os.open(file, os.O_RDONLY))
                self._owned[owner].add(file)
            found.users += 1
            self._files.move_to_end(key)
        try:
            yield found.descriptor
        finally:
            with self._lock:
                found.users -= 1

    def close(self, owner: object) -> None:
        """Close the files of ``owner``, which must not be in use."""
        with self._lock:
            for file in self._owned.pop(owner, ()):
                if (owner, file) in self._files:  # else it was closed to make room
                    os.close(self._files.pop((owner, file)).descriptor)

    def _close_idle(self, most: int) -> None:
        for key in list(self._files) if len(self._files) > most else []:
            if self._files[key].users == 0:
                os.close(self._files.pop(key).descriptor)
                if len(self._files) <= most:
                    return


# Half of what the process may have: the rest is for everything else.
FILES = OpenFiles(max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
