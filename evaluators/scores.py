"""Scores with their documents, so that two models can be compared pair by pair."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np


class Estimate(NamedTuple):
    """A mean with its standard error (NaN for a single document)."""

    value: float
    stderr: float


@dataclass(frozen=True)
class TaskScore:
    """One task's result on some documents: ``values[i]`` is the metric on document ``documents[i]`` of the task."""

    task: str
    documents: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, task: str, results: Mapping[int, float]) -> Self:
        """From the metric by document."""
        return cls(task, tuple(sorted(results)), tuple(results[document] for document in sorted(results)))

    @property
    def estimate(self) -> Estimate:
        """Mean over documents and its standard error."""
        return mean_with_error(self.values)


@dataclass(frozen=True)
class Score:
    """The score of a model on one split: the unweighted mean of its tasks."""

    tasks: tuple[TaskScore, ...]

    @property
    def estimate(self) -> Estimate:
        """Mean of the tasks' means; their errors are independent."""
        return average([task.estimate for task in self.tasks])

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
        Raises ValueError where the documents differ.
        """
        if [(task.task, task.documents) for task in self.tasks] != [(t.task, t.documents) for t in other.tasks]:
            raise ValueError("the two scores are over different documents")
        pairs = zip(self.tasks, other.tasks, strict=True)
        return average([mean_with_error(np.subtract(mine.values, theirs.values)) for mine, theirs in pairs])

    def to_dict(self) -> dict[str, Any]:
        """Plain data: value and standard error, whole and by task."""
        return {
            **as_dict(self.estimate),
            "documents": self.count,
            "tasks": {task.task: {**as_dict(task.estimate), "documents": len(task.documents)} for task in self.tasks},
        }


def mean_with_error(values: Sequence[float] | np.ndarray[Any, Any]) -> Estimate:
    """Sample mean and its standard error.

    >>> mean_with_error([0.0, 1.0, 1.0, 0.0])
    Estimate(value=0.5, stderr=0.28867513459481287)
    """
    sample = np.asarray(values, dtype=np.float64)
    spread = sample.std(ddof=1) / math.sqrt(len(sample)) if len(sample) > 1 else math.nan
    return Estimate(float(sample.mean()), float(spread))


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of independent estimates."""
    value = sum(estimate.value for estimate in estimates) / len(estimates)
    return Estimate(value, math.sqrt(sum(estimate.stderr**2 for estimate in estimates)) / len(estimates))


def as_dict(estimate: Estimate) -> dict[str, float | None]:
    """``value`` and ``stderr``; null where the error is unknown."""
    return {"value": estimate.value, "stderr": None if math.isnan(estimate.stderr) else estimate.stderr}
