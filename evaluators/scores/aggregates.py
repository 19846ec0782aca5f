"""One number from a score of several tasks: what a search selects on."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from evaluators.scores.score import Estimate, Score, mean_with_error, require_same_tasks
from kinship.errors import InvalidConfig
from kinship.validation import Strict, nearest


class Aggregate(Strict):
    """How the tasks' means become one number."""

    kind: Literal["mean", "weighted", "normalised", "worst"] = Field(
        "mean",
        description="mean of the tasks; weighted mean; mean after each task is put between the worst founder's 0 and "
        "the best founder's 1; or the worst task alone",
    )
    weights: dict[str, float] = Field(
        default_factory=dict, description="weight of a task, for weighted and normalised; 1 unless given"
    )

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.weights and self.kind in ("mean", "worst"):
            raise ValueError(f"{self.kind} takes no weights; choose weighted or normalised")
        if self.kind == "weighted" and not self.weights:
            raise ValueError("weighted needs the weight of at least one task")
        for task, weight in self.weights.items():
            if not 0 < weight < float("inf"):
                raise ValueError(f"the weight of {task} is {weight}; expected a positive number")
        return self

    def require_tasks(self, names: Sequence[str]) -> None:
        """Raise `InvalidConfig` for a weight of a task that is none of ``names``."""
        for task in self.weights:
            if task not in names:
                raise InvalidConfig(f"There is a weight for {task!r}, which is no task.", hint=nearest(task, names))

    def require_alike(self, metrics: Mapping[str, str]) -> None:
        """Raise `InvalidConfig` where this would take ``metrics`` (by task) of unlike kinds for equals."""
        if self.kind in ("mean", "worst") and not alike(metrics.values()):
            said = ", ".join(f"{task} ({metric})" for task, metric in metrics.items())
            raise InvalidConfig(
                f"The {'mean' if self.kind == 'mean' else 'worst'} of tasks with unlike metrics says nothing: {said}.",
                hint="Say how they weigh: aggregate: {kind: normalised}, or {kind: weighted, weights: {...}}.",
            )


# Metrics that count to 100, or on a scale of their own; the others that lm-eval takes means of go from 0 to 1.
_OTHER_SCALE = re.compile(r"log-likelihood|negative |score$|bleu|rouge|chrf|ter$", re.IGNORECASE)


def alike(metrics: Iterable[str]) -> bool:
    """Whether means of ``metrics`` can be averaged or compared: equal ones, or all shares of what is right.

    >>> alike(["acc", "exact_match"]), alike(["acc", "log-likelihood per byte"]), alike(["score", "score"])
    (True, False, True)
    """
    return len({metric if _OTHER_SCALE.match(metric) else "share" for metric in metrics}) <= 1


def fitness(score: Score, aggregate: Aggregate, founders: Sequence[Score] = ()) -> Estimate:
    """The number that ``score`` comes to, with its standard error; tasks are taken as independent.

    * ``mean``: the tasks' mean; of a partial score, the estimate it carries. All other kinds take a partial score's
      tasks as far as they were seen.
    * ``weighted``: ``sum(w m) / sum(w)``.
    * ``normalised``: the weighted mean of ``(m - low) / (high - low)``, where ``low`` and ``high`` are the worst and
      the best mean among the ``founders``. The range counts as exact: its own error is common to all that are ranked
      by it. Where all founders are equal, only ``low`` is taken off.
    * ``worst``: the lowest of the tasks' means. Being the lowest of several noisy ones it is, on average, below the
      mean of the truly worst task.

    Raises `InvalidConfig` for weights of other tasks and for ``normalised`` without founders,
    `IncomparableScores` for founders scored on other tasks.
    """
    aggregate.require_tasks([task.task for task in score.tasks])
    if aggregate.kind == "mean":
        return score.estimate
    estimates = [task.estimate for task in score.tasks]
    factors = shares(score, aggregate, founders)
    if factors is None:
        return min(estimates, key=lambda estimate: estimate.value)
    zeros = [low for low, _ in _ranges(score, founders)] if aggregate.kind == "normalised" else [0.0] * len(estimates)
    value = sum(share * (each.value - zero) for share, each, zero in zip(factors, estimates, zeros, strict=True))
    variance = sum((share * each.stderr) ** 2 for share, each in zip(factors, estimates, strict=True))
    return Estimate(value, math.sqrt(variance))


def shares(score: Score, aggregate: Aggregate, founders: Sequence[Score] = ()) -> list[float] | None:
    """What a difference in each task's mean counts in the fitness, in the order of the tasks of ``score``.

    None for ``worst``, which is no sum. Errors as in `fitness`.
    """
    names = [task.task for task in score.tasks]
    weights = [aggregate.weights.get(name, 1.0) for name in names]
    total = sum(weights)
    match aggregate.kind:
        case "worst":
            return None
        case "normalised":
            spans = [(high - low) or 1.0 for low, high in _ranges(score, founders)]
            return [weight / total / span for weight, span in zip(weights, spans, strict=True)]
        case _:
            return [weight / total for weight in weights]


def differences(
    score: Score, other: Score, aggregate: Aggregate, founders: Sequence[Score] = ()
) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """Samples, paired by document, whose means add up to the fitness of ``score`` less that of ``other``.

    One a task; of ``worst`` the task that is the worst of each, as if it were known to be that: one sample where it
    is the same one. `evaluators.scores.intervals.paired_differences` gives intervals of them. Errors as in `fitness`,
    and `IncomparableScores` where documents differ.
    """
    samples = score.differences(other)
    factors = shares(score, aggregate, founders)
    if factors is not None:
        return [factor * sample for factor, sample in zip(factors, samples, strict=True)]
    mine, theirs = (min(each.tasks, key=lambda task: task.estimate.value) for each in (score, other))
    if mine.task == theirs.task:
        return [samples[score.tasks.index(mine)]]
    return [np.array(mine.values), -np.array(theirs.values)]


def gain(score: Score, other: Score, aggregate: Aggregate, founders: Sequence[Score] = ()) -> Estimate:
    """The fitness of ``score`` less that of ``other``, with its standard error: see `differences`."""
    if aggregate.kind == "mean":
        return score.gain_over(other)
    parts = [mean_with_error(sample) for sample in differences(score, other, aggregate, founders)]
    return Estimate(sum(part.value for part in parts), math.sqrt(sum(part.stderr**2 for part in parts)))


def pareto_front(tasks: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Ids that no other dominates: none is at least as good on every task and better on one. In the order given.

    tasks: by id the score of each task, the same tasks for all. Equal ones are all kept. Cost: n x front x tasks.

    >>> pareto_front({"both": {"a": 0.5, "b": 0.5}, "a alone": {"a": 0.9, "b": 0.1}, "less": {"a": 0.5, "b": 0.4}})
    ['both', 'a alone']
    """
    ids = list(tasks)
    if not ids:
        return []
    scores = np.array([[tasks[id][task] for task in tasks[ids[0]]] for id in ids])
    left = np.lexsort(-scores.T[::-1])  # whoever dominates another comes before it
    front = []
    while len(left):
        first = scores[left[0]]
        beaten = (first >= scores[left]).all(axis=1) & (first > scores[left]).any(axis=1)
        front.append(left[0])
        left = left[1:][~beaten[1:]]
    return [ids[place] for place in sorted(front)]


def _ranges(score: Score, founders: Sequence[Score]) -> list[tuple[float, float]]:
    """(lowest, highest) mean of the founders by task."""
    if not founders:
        raise InvalidConfig("A normalised score needs the founders' scores.")
    require_same_tasks([score, *founders])
    columns = zip(*([task.estimate.value for task in founder.tasks] for founder in founders), strict=True)
    return [(min(column), max(column)) for column in columns]
