"""The far side of a pool: what a worker does, and what it reports. Local processes and Ray actors share it."""

import pickle
import traceback
from dataclasses import dataclass
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
