"""Several evaluators as one."""

from collections.abc import Mapping, Sequence

from evaluators.base import Candidate, Evaluator, Task
from kinship.errors import InvalidConfig


class Combined:
    """An `Evaluator` of the tasks of all ``evaluators``, in their order.

    Raises `InvalidConfig` where two tasks share a name.
    """

    def __init__(self, evaluators: Sequence[Evaluator]) -> None:
        self._evaluators = evaluators
        self.tasks: list[Task] = [task for evaluator in evaluators for task in evaluator.tasks]
        self.conditions: dict[str, str] = {}
        for evaluator in evaluators:
            self.conditions |= evaluator.conditions
        require_names([task.name for task in self.tasks])

    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        """See `Evaluator.run`."""
        results: dict[str, dict[int, float]] = {}
        for evaluator in self._evaluators:
            own = {task.name: documents[task.name] for task in evaluator.tasks if documents.get(task.name)}
            if own:
                results |= evaluator.run(candidate, own)
        return results


def require_names(names: Sequence[str]) -> None:
    """Raise `InvalidConfig` where a name comes twice."""
    for name in names:
        if names.count(name) > 1:
            raise InvalidConfig(f"Two tasks are called {name!r}.", hint="Give one of them another name.")
