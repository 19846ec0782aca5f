"""What a pool of workers is, and what it says of a payload that came to nothing."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from kinship.errors import KinshipError, WorkersFailed

# What a worker does with a payload.
Handle = Callable[[Any], Any]

# Run once in each worker, it makes the handle: here models are opened and evaluators built. It travels by pickle, as
# payloads and results do: classes and functions that stand in a module, with small contents. Weights never travel.
Setup = Callable[[], Handle]


@dataclass(frozen=True)
class Failure:
    """A payload without a result.

    ``kind``: ``raised`` by the handle, ``hung`` beyond the limit of time, or ``lost`` with the worker that had it.
    ``traceback``: where it happened, or the last lines that the worker printed, as far as they are known.
    ``attempts``: how often it was tried.
    """

    kind: Literal["raised", "hung", "lost"]
    message: str
    traceback: str
    attempts: int

    @classmethod
    def of(cls, error: BaseException, attempts: int) -> "Failure":
        """The failure of a payload whose handle raised ``error``."""
        return cls("raised", words(error), "".join(traceback.format_exception(error)), attempts)


def words(error: BaseException) -> str:
    """An error in one line, with its type where the message does not speak for itself.

    >>> words(KeyError("loss"))
    "KeyError: 'loss'"
    """
    return error.message if isinstance(error, KinshipError) else f"{type(error).__name__}: {error}"


def setup_failed(reason: str, details: str = "") -> WorkersFailed:
    """The error of a pool whose workers cannot be set up; ``details`` are a traceback or the last lines printed."""
    return WorkersFailed(
        f"A worker could not be set up: {reason}" + (f"\n{details.rstrip()}" if details else ""),
        hint="Every worker would end so: mend that first. With workers of the kind inline it is easier to look into.",
    )


class WorkerPool(Protocol):
    """Workers that were all set up alike.

    `evaluators.testing.pool` holds the checks that every implementation passes. What a pool promises:

    * Each payload of a run comes to exactly one outcome, a result or a `Failure`, in whatever order they complete.
    * Results depend on the payload alone, as far as the handle does: not on the worker, the pool or the other payloads.
    * A worker stays as it is from payload to payload and from run to run: it is set up once, and again only where it
      was lost.
    * Nothing is durable. A pool remembers no results; whoever must not lose one keeps it before asking for the next.
    * Workers, and all that they have started, end with `close` and with the process that made the pool, however that
      ends. (`InlinePool` is the caller itself, and promises neither this nor to survive a payload that hangs or dies.)

    What it may expect: one thread uses it, one run at a time. It owns its workers; setup, payloads and results are
    copied, so that neither side sees the other change them. (Inline they are the caller's own objects.)
    """

    @property
    def size(self) -> int:
        """How many payloads are worked on at once."""
        ...

    def run(self, payloads: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(index, result or `Failure`) of each payload, as they complete; nothing happens until it is iterated.

        A payload whose worker dies or hangs is tried again by another, as often as the settings say; a handle that
        raises is not asked again, unless the settings say so. One payload's failure leaves the others alone. An
        iteration left early leaves the pool usable.

        Raises `WorkersFailed` where no worker can be set up; a `KinshipError` of the setup is its ``__cause__``.
        Workers elsewhere raise RuntimeError where another run has not ended, or the pool is closed.
        """
        ...

    def close(self) -> None:
        """End all workers, whatever they are doing; closing twice does no harm."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
