"""What an evaluator is, and what it evaluates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from evaluators.splits import Split
from merging.materialise import Tensors


@dataclass(frozen=True)
class Candidate:
    """Weights to be scored: ``identity`` is equal for equal weights only; ``tensors`` yields them (name, tensor)."""

    id: str
    identity: str
    tensors: Callable[[], Tensors]


@dataclass(frozen=True)
class Task:
    """A task as an evaluator will run it.

    ``digest`` covers everything that decides a document's result but the weights: the task's definition, its documents,
    prompts, metric and the settings of the evaluator. ``documents``: the indices in each split, ascending.
    """

    name: str
    metric: str
    digest: str
    documents: Mapping[Split, Sequence[int]] = field(default_factory=dict)


class Evaluator(Protocol):
    """Runs tasks on weights. One evaluator serves one thread; results depend on candidate and documents alone."""

    @property
    def tasks(self) -> Sequence[Task]:
        """The tasks it can run, in order."""
        ...

    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        """The metric of each of the ``documents`` (by task name), higher is better.

        Raises `EvaluationFailed` where the candidate gives no usable number.
        """
        ...
