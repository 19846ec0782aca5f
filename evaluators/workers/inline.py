"""Work in this very process, behind the interface of a pool."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

from evaluators.workers.base import Failure, Handle, Setup, setup_failed, words
from evaluators.workers.settings import WorkerSettings


class InlinePool:
    """One worker: the caller. Payloads that raise are contained; those that hang or end the process are not.

    Nothing is pickled, and the setup runs on the first payload.
    """

    size = 1

    def __init__(self, settings: WorkerSettings, setup: Setup) -> None:
        self._settings = settings
        self._setup = setup
        self._handle: Handle | None = None

    def run(self, payloads: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """See `WorkerPool.run`; payloads are worked on in order."""
        for index, payload in enumerate(payloads):
            yield index, self._work(payload)

    def _work(self, payload: Any) -> Any:
        if self._handle is None:
            self._handle = self._set_up()
        for attempt in range(1, self._settings.attempts + 1):
            try:
                return self._handle(payload)
            except (Exception, SystemExit) as error:
                failure = Failure.of(error, attempt)
            if not self._settings.retry_raised:
                break
        return failure

    def _set_up(self) -> Handle:
        try:
            return self._setup()
        except (Exception, SystemExit) as error:
            raise setup_failed(words(error)) from error

    def close(self) -> None:
        """Drop what the setup made."""
        self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
