"""What an evaluator is, and what it evaluates."""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from evaluators.scores.splits import Split
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import EvaluationFailed, KinshipError

if TYPE_CHECKING:
    from merging.beside.files import Beside
    from merging.offspring.weights import Tensors

Documents = Mapping[str, Sequence[int]]
"""Indices of documents by task name."""


LARGEST = 1e100
"""Results beyond this are no scores: means and errors of them overflow."""


@dataclass(frozen=True)
class Candidate:
    """Weights to be scored: ``identity`` is equal for equal weights only; ``tensors`` yields them (name, tensor).

    beside: what lies beside the weights (`merging.beside`) and is to take part, or the model whose files are to; then
    ``identity`` covers it.
    require_unchanged: raises `InputsChanged` where what they are made of is no longer what ``identity`` is about.
    """

    id: str
    identity: str
    tensors: "Callable[[], Tensors]"
    require_unchanged: Callable[[], None] = lambda: None
    beside: "Checkpoint | Beside | None" = None


@dataclass(frozen=True)
class Task:
    """A task as an evaluator will run it.

    ``digest`` covers everything that decides a document's result but the weights: the task's definition, its documents,
    prompts, metric and the settings of the evaluator. ``metric``: of one document, higher is better; those of which
    means may be taken have names that are `evaluators.scores.aggregates.alike`. ``documents``: the indices in each
    split, ascending; no held-out split where nothing is held out. ``version``: as its author counts. ``public``: a
    benchmark that others report too, see `evaluators.make.require_acknowledged`. ``price``: gives the tokens
    that a document of it costs, the same whenever it is asked; None where nobody knows. It decides no result.
    """

    name: str
    metric: str
    digest: str
    documents: Mapping[Split, Sequence[int]] = field(default_factory=dict)
    version: str = ""
    public: bool = False
    price: Callable[[], float] | None = field(default=None, compare=False, repr=False)


def is_result(value: float) -> bool:
    """Whether a document can have this result: a number whose squares can be added up.

    >>> [is_result(value) for value in (0.5, -1e9, float("nan"), 1e308)]
    [True, True, False, False]
    """
    return abs(value) <= LARGEST  # False for NaN


class Evaluator(Protocol):
    """Runs tasks on weights.

    `evaluators.testing.evaluator` holds the checks that every implementation passes. What it promises:

    * Results depend on candidate and documents alone: not on what was run before, on the order of the documents, on
      seeds set elsewhere or on the working directory. A search resumed after a crash relies on it.
    * Tasks and conditions never change, so that their digests may stand for them in caches and ledgers.
    * A candidate's failure is its own: it raises, and the next candidate is scored as if nothing had happened.
    * It keeps no results. What outlives the process is for `evaluators.cached.CachedEvaluator` to keep.

    What it may expect: one thread makes and uses it, one call at a time. What it opens and holds in memory is its own
    and goes when it does; nobody tells it to close. A `Candidate` and its tensors are only lent: they are read during
    `run`, and neither changed nor kept beyond it.
    """

    @property
    def tasks(self) -> Sequence[Task]:
        """The tasks it can run, in order, each with a name of its own."""
        ...

    @property
    def conditions(self) -> Mapping[str, str]:
        """What scores were made with, for people: versions, device, dtype, batch size, seed. Digests cover it."""
        ...

    def run(self, candidate: Candidate, documents: Documents) -> dict[str, dict[int, float]]:
        """The metric of each of the ``documents`` (by task name), higher is better.

        Raises `EvaluationFailed` where the candidate gives no usable number, or anything goes wrong on the way: see
        `failing`.
        """
        ...


@contextmanager
def failing(candidate: str, doing: str) -> Iterator[None]:
    """Turn what is raised within into `EvaluationFailed`: one candidate's failure must not end a search.

    The original with its traceback is the ``__cause__``. Errors of this project pass as they are, and so does what
    is no `Exception`: an interrupt ends everything.

    >>> with failing("2-1", "judge"):  # doctest: +ELLIPSIS
    ...     1 / 0
    Traceback (most recent call last):
    kinship.errors.EvaluationFailed: 2-1 was not scored: judge raised ZeroDivisionError: division by zero (...).
    """
    try:
        yield
    except KinshipError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        raise EvaluationFailed(
            f"{candidate} was not scored: {doing} raised {type(error).__name__}: {error}{place}.",
            hint="The traceback tells where; the other candidates are not concerned.",
        ) from error


def gives_nan(candidate: str, where: str) -> EvaluationFailed:
    """The error for a model whose numbers are none."""
    return EvaluationFailed(
        f"{candidate} gives NaN {where}.",
        hint="Its weights are unusable: merge with smaller weights or leave it out.",
    )
