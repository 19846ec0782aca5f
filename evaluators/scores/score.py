"""Scores with their documents, so that two models can be compared pair by pair."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from kinship.errors import IncomparableScores

Results = Mapping[str, Mapping[int, float]]
"""The metric by document, by task name; higher is better."""


class Estimate(NamedTuple):
    """A mean with its standard error (NaN for a single document)."""

    value: float
    stderr: float


@dataclass(frozen=True)
class TaskScore:
    """One task's result on some documents: ``values[i]`` is the metric on document ``documents[i]`` of the task.

    ``digest`` is the task's (`evaluators.base.Task`): results under different digests are of different tasks.
    """

    task: str
    documents: tuple[int, ...]
    values: tuple[float, ...]
    digest: str = ""

    @classmethod
    def of(cls, task: str, results: Mapping[int, float], digest: str = "") -> Self:
        """From the metric by document."""
        return cls(task, tuple(sorted(results)), tuple(results[document] for document in sorted(results)), digest)

    @property
    def estimate(self) -> Estimate:
        """Mean over documents and its standard error."""
        return mean_with_error(self.values)


@dataclass(frozen=True)
class Score:
    """The score of a model on one split: the unweighted mean of its tasks (other ways: `evaluators.scores.aggregates`).

    ``partial``: for a candidate stopped before its last document, the estimate of its full score. ``tasks`` then
    holds the documents seen.
    """

    tasks: tuple[TaskScore, ...]
    partial: Estimate | None = None

    @classmethod
    def of(cls, results: Results, digests: Mapping[str, str]) -> Self:
        """Of all documents in ``results``; ``digests``: of the tasks, by name, in whose order they come."""
        return cls(tuple(TaskScore.of(task, results[task], digest) for task, digest in digests.items()))

    @property
    def complete(self) -> bool:
        """Whether every document was seen."""
        return self.partial is None

    @property
    def estimate(self) -> Estimate:
        """Mean of the tasks' means; their errors are independent. Of a partial score, the estimate it carries."""
        return self.partial or average([task.estimate for task in self.tasks])

    @property
    def value(self) -> float:
        """The mean alone."""
        return self.estimate.value

    @property
    def count(self) -> int:
        """Number of documents."""
        return sum(len(task.documents) for task in self.tasks)

    def gain_over(self, other: "Score") -> Estimate:
        """Difference to ``other`` on the same documents, with its paired standard error.

        Pairing by document removes what makes a document hard for both, so the error is smaller than that of two
        independent scores (Miller, arXiv 2411.00640, section 4.2).
        Raises `IncomparableScores` where tasks or documents differ.
        """
        return average([mean_with_error(differences) for differences in self.differences(other)])

    def differences(self, other: "Score") -> list[np.ndarray[Any, np.dtype[np.float64]]]:
        """This score's values less those of ``other``, an array of float64 a task, in the order of the tasks.

        Raises `IncomparableScores` where tasks or documents differ.
        """
        require_same_tasks([self, other])
        for mine, theirs in zip(self.tasks, other.tasks, strict=True):
            if mine.documents != theirs.documents:
                raise IncomparableScores(
                    f"The two scores are over different documents of {mine.task}: {len(mine.documents)} and "
                    f"{len(theirs.documents)}, {len({*mine.documents} & {*theirs.documents})} of them in common.",
                    hint="Score both with the same limit and split.",
                )
        pairs = zip(self.tasks, other.tasks, strict=True)
        return [np.subtract(mine.values, theirs.values, dtype=np.float64) for mine, theirs in pairs]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: value and standard error, whole and by task; ``complete`` is false for a partial score."""
        return {
            **as_dict(self.estimate),
            "complete": self.complete,
            "documents": self.count,
            "tasks": {
                task.task: {**as_dict(task.estimate), "documents": len(task.documents), "digest": task.digest}
                for task in self.tasks
            },
        }


def require_same_tasks(scores: Iterable[Score]) -> None:
    """Raise `IncomparableScores` unless all ``scores`` are of the same tasks by name and digest, in one order."""
    first: Score | None = None
    for score in scores:
        first = first or score
        names, others = ([task.task for task in each.tasks] for each in (first, score))
        if names != others:
            raise IncomparableScores(f"The scores are of different tasks: {', '.join(names)}; {', '.join(others)}.")
        for one, other in zip(first.tasks, score.tasks, strict=True):
            if one.digest != other.digest:
                raise IncomparableScores(
                    f"The scores are of different tasks called {one.task}: their digests are "
                    f"{one.digest[:12] or 'not known'} and {other.digest[:12] or 'not known'}.",
                    hint="Task definition, documents, prompts, model config, tokenizer, device, dtype, batch size or "
                    "versions differ; score both under the same conditions.",
                )


def mean_with_error(values: Sequence[float] | np.ndarray[Any, Any]) -> Estimate:
    """Sample mean and its standard error.

    >>> mean_with_error([0.0, 1.0, 1.0, 0.0])
    Estimate(value=0.5, stderr=0.28867513459481287)
    """
    sample = np.asarray(values, dtype=np.float64)
    spread = sample.std(ddof=1) / math.sqrt(len(sample)) if len(sample) > 1 else math.nan
    return Estimate(float(sample.mean()), float(spread))


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of independent estimates.

    >>> average([Estimate(1.0, 3.0), Estimate(3.0, 4.0)])
    Estimate(value=2.0, stderr=2.5)
    """
    value = sum(estimate.value for estimate in estimates) / len(estimates)
    return Estimate(value, math.sqrt(sum(estimate.stderr**2 for estimate in estimates)) / len(estimates))


def as_dict(estimate: Estimate) -> dict[str, float | None]:
    """``value`` and ``stderr``; null where the error is unknown."""
    return {"value": estimate.value, "stderr": None if math.isnan(estimate.stderr) else estimate.stderr}
