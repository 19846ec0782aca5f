"""What is read of runs, kept for as long as their ledgers do not change: read once for everybody who asks."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.http.workspace import RunPlace

Found = TypeVar("Found")


@dataclass
class Remembered(Generic[Found]):
    """What ``read`` makes of a run, and of what it made of it before; of at most ``kept`` runs.

    Safe to be used by several threads: who asks for what is just being read waits for that. What ``read`` raises is
    not remembered.
    """

    read: Callable[[RunPlace, Found | None], Found]
    kept: int
    _found: "OrderedDict[str, tuple[object, Found]]" = field(default_factory=OrderedDict)
    _reading: dict[str, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, place: RunPlace) -> Found:
        """As it is now. Raises what ``read`` does."""
        with self._lock:
            reading = self._reading.setdefault(place.id, threading.Lock())
        with reading:
            state = place.location, place.state
            known = self._found.get(place.id)
            if known is not None and known[0] == state:
                return known[1]
            found = self.read(place, None if known is None else known[1])
            with self._lock:
                self._found[place.id] = state, found
                self._found.move_to_end(place.id)
                while len(self._found) > self.kept:
                    self._reading.pop(self._found.popitem(last=False)[0], None)
            return found
