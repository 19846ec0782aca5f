"""Every error a user can cause, as one small family of types.

Each error names the item, what was expected and what was found (``message``) and what to do next
(``hint``). ``code`` is stable and goes into JSON output; the command line prints message and hint.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import ClassVar


class KinshipError(Exception):
    """Base of all errors that are the input's fault, not a bug's."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_dict(self) -> dict[str, str]:
        """The JSON form: ``schema``, ``code``, ``message``, ``hint``."""
        return {"schema": "kinship.error/1", "code": self.code, "message": self.message, "hint": self.hint}


class KinshipWarning(UserWarning):
    """What somebody should know though it ends nothing, such as a cache that had to be made anew."""


@contextmanager
def about(item: str) -> Iterator[None]:
    """Put ``item`` before the message of a `KinshipError` raised inside, where it is not known what is worked on.

    >>> try:
    ...     with about("Tensor 'w' of one, two"):
    ...         raise InvalidConfig("The weights sum to zero.")
    ... except KinshipError as error:
    ...     print(error)
    Tensor 'w' of one, two: The weights sum to zero.
    """
    try:
        yield
    except KinshipError as error:
        raise type(error)(f"{item}: {error.message}", hint=error.hint) from error


def nearest(key: str, known: Iterable[str]) -> str:
    """A hint for the unknown ``key``: the nearest of the ``known`` ones, or all of them.

    >>> nearest("wieght", ["weight", "scale"])
    "Did you mean 'weight'?"
    """
    known = list(known)
    close = get_close_matches(key, known, n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else f"Known here: {', '.join(known)}."


@contextmanager
def foreign(kind: type[KinshipError], message: str, *, hint: str = "") -> Iterator[None]:
    """Turn whatever another library raises within into one ``kind`` of error: ``message``, then what it said first.

    Errors of this project pass as they are, and so do interrupts. The original is the ``__cause__``.

    >>> try:
    ...     with foreign(UnsupportedCheckpoint, "No tokenizer can be made of /models/a"):
    ...         {}["model"]
    ... except KinshipError as error:
    ...     print(error)
    No tokenizer can be made of /models/a: KeyError: 'model'
    """
    try:
        yield
    except (KinshipError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        said = next((line for line in str(error).splitlines() if line.strip()), "").strip()
        told = f"{type(error).__name__}: {said}" if said else type(error).__name__
        raise kind(f"{message}: {told}", hint=hint) from error


class ReferenceNotFound(KinshipError):
    """A model reference points to nothing."""

    code = "reference_not_found"


class MalformedCheckpoint(KinshipError):
    """A file is not what its format promises."""

    code = "malformed_checkpoint"


class UnsupportedCheckpoint(KinshipError):
    """A well-formed checkpoint of a kind that cannot be used here, for example a quantised one."""

    code = "unsupported_checkpoint"


class MismatchedModels(KinshipError):
    """Models that cannot be compared or merged with each other."""

    code = "mismatched_models"


class NonFiniteWeights(KinshipError):
    """NaN or infinity among the weights."""

    code = "non_finite_weights"


class InvalidConfig(KinshipError):
    """A recipe, run file or option that says something impossible."""

    code = "invalid_config"


class InputsChanged(KinshipError):
    """A file was changed by somebody else while it was in use."""

    code = "inputs_changed"


class OutputExists(KinshipError):
    """Refusal to overwrite."""

    code = "output_exists"


class OutputNotWritable(KinshipError):
    """The place for the output cannot be written."""

    code = "output_not_writable"


class EvaluationFailed(KinshipError):
    """A model could not be scored."""

    code = "evaluation_failed"


class IncomparableScores(KinshipError):
    """Scores of different tasks, or on different documents, that were to be compared or averaged."""

    code = "incomparable_scores"


class CacheError(KinshipError):
    """The score cache cannot be used."""

    code = "cache_error"


class WorkersFailed(KinshipError):
    """No worker can be started or set up, so that nothing can be scored."""

    code = "workers_failed"


class LedgerError(KinshipError):
    """A run's ledger cannot be used as asked."""

    code = "ledger_error"


class DatabaseUnavailable(LedgerError):
    """The server of a run's ledger cannot be reached just now."""

    code = "database_unavailable"


class SystemRefused(KinshipError):
    """The system refuses a file, memory or the like, and nobody knows better what that was for."""

    code = "system_refused"
