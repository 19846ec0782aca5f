"""One number from a score of several tasks: what a search selects on."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from evaluators.scores import Estimate, Score, require_same_tasks
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

    With these `evaluators.intervals.compare` gives intervals of differences in fitness. None for ``worst``, which is
    no sum. Errors as in `fitness`.
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


def pareto_front(scores: Mapping[str, Score]) -> list[str]:
    """Ids that no other dominates: none is at least as good on every task and better on one. In the order given.

    Equal ones are all kept. Partial scores count by the documents seen: leave them out to be safe.
    Raises `IncomparableScores` for scores of different tasks. Cost: n² x tasks.
    """
    require_same_tasks(scores.values())
    means = np.array([[task.estimate.value for task in score.tasks] for score in scores.values()])
    front = []
    for id, own in zip(scores, means, strict=True):
        dominating = (means >= own).all(axis=1) & (means > own).any(axis=1)
        if not dominating.any():
            front.append(id)
    return front


def _ranges(score: Score, founders: Sequence[Score]) -> list[tuple[float, float]]:
    """(lowest, highest) mean of the founders by task."""
    if not founders:
        raise InvalidConfig("A normalised score needs the founders' scores.")
    require_same_tasks([score, *founders])
    columns = zip(*([task.estimate.value for task in founder.tasks] for founder in founders), strict=True)
    return [(min(column), max(column)) for column in columns]
