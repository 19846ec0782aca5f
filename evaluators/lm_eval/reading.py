"""What a model answered, as one number a document: what lm-eval's ``process_results`` says, asked once."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evaluators.base import gives_nan
from evaluators.lm_eval.metrics import Measure

# What lm-eval divides likelihoods of choices by, before the largest wins.
_UNITS: Mapping[str, Callable[[str], int]] = {
    "acc": lambda choice: 1,
    "acc_norm": len,
    "acc_bytes": lambda choice: len(choice.encode()),
}


class Reading:
    """Reads the answers to a task: ``measure`` of what ``filter`` makes of them.

    A document's texts never change, so their templates are rendered once. Of a multiple choice, accuracies depend on
    nothing but which choice wins: lm-eval is asked once for each document and winner, and its word is remembered.
    """

    def __init__(self, name: str, task: Any, documents: Sequence[Any], measure: Measure, filter: str) -> None:
        self._name, self._task, self._documents = name, task, documents
        self._measure, self._filter = measure, filter
        _render_once(task, documents)
        self._unit = _UNITS.get(measure.key) if _is_plain_choice(task) else None
        self._lengths: dict[int, list[int]] = {}
        self._verdicts: dict[tuple[int, int], float] = {}

    def values(self, candidate: str, requests: list[Any]) -> dict[int, float]:
        """The measure by document, from the answers in ``requests``; raises `EvaluationFailed` for NaN."""
        self._task._instances = requests
        self._task.apply_filters()
        by_document: dict[int, list[Any]] = defaultdict(list)
        for request in requests:
            by_document[request.doc_id].append(request)
        found = {}
        for index, group in by_document.items():
            answers = [request.filtered_resps[self._filter] for request in sorted(group, key=lambda each: each.idx)]
            found[index] = math.nan if any(map(_is_nan, answers)) else self._value(index, answers)
            if not math.isfinite(found[index]):
                raise gives_nan(candidate, f"on document {index} of {self._name}")
        return found

    def _value(self, index: int, answers: Sequence[Any]) -> float:
        winner = self._winner(index, answers)
        if winner is None:
            return self._asked(index, answers)
        if (index, winner) not in self._verdicts:
            self._verdicts[index, winner] = self._asked(index, answers)
        return self._verdicts[index, winner]

    def _asked(self, index: int, answers: Sequence[Any]) -> float:
        return self._measure.read(self._task.process_results(self._documents[index], answers))

    def _winner(self, index: int, answers: Sequence[tuple[float, bool]]) -> int | None:
        """The choice that wins, the first of equals; None where more than that may count."""
        if self._unit is None:
            return None
        if index not in self._lengths:
            self._lengths[index] = [self._unit(choice) for choice in self._task.doc_to_choice(self._documents[index])]
        lengths = self._lengths[index]
        if len(lengths) != len(answers) or 0 in lengths:
            return None
        values = [likelihood / length for (likelihood, _), length in zip(answers, lengths, strict=True)]
        return values.index(max(values))


def _is_plain_choice(task: Any) -> bool:
    """Whether ``task`` is a multiple choice whose accuracies are lm-eval's own, not of a function of the task's."""
    from lm_eval.api.task import ConfigurableTask

    return (
        task.OUTPUT_TYPE == "multiple_choice"
        and type(task).process_results is ConfigurableTask.process_results
        and not callable(task.config.process_results)
    )


def _render_once(task: Any, documents: Sequence[Any]) -> None:
    """Let ``task`` remember the texts of ``documents``: of these very objects, which are kept alive."""
    own = {id(document) for document in documents}

    def remembering(render: Callable[..., Any]) -> Callable[..., Any]:
        known: dict[int, Any] = {}

        def remembered(document: Any, *given: Any, **named: Any) -> Any:
            if given or named or id(document) not in own:
                return render(document, *given, **named)
            if id(document) not in known:
                known[id(document)] = render(document)
            return known[id(document)]

        return remembered

    for name in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        if hasattr(task, name):
            setattr(task, name, remembering(getattr(task, name)))


def _is_nan(answer: Any) -> bool:
    likelihood = answer[0] if isinstance(answer, tuple | list) and answer else answer
    return isinstance(likelihood, float) and math.isnan(likelihood)
