"""An evaluator with a memory: candidates in, scores out."""

import math
from collections.abc import Mapping

from evaluators.base import Candidate, Evaluator, Task
from evaluators.cache import ScoreCache
from evaluators.scores import Score, TaskScore
from evaluators.splits import Split
from kinship.errors import EvaluationFailed


class Scorer:
    """Scores candidates on a split; documents whose results are in ``cache`` are not run again."""

    def __init__(self, evaluator: Evaluator, cache: ScoreCache | None = None) -> None:
        self.evaluator = evaluator
        self._cache = cache

    def score(self, candidate: Candidate, split: Split) -> Score:
        """The candidate's score; raises `EvaluationFailed` where it has none."""
        tasks = self.evaluator.tasks
        known = {task.name: self._cache.load(candidate.identity, task) if self._cache else {} for task in tasks}
        missing = {
            task.name: [document for document in task.documents[split] if document not in known[task.name]]
            for task in tasks
        }
        missing = {name: documents for name, documents in missing.items() if documents}
        fresh = self.evaluator.run(candidate, missing) if missing else {}
        for task in tasks:
            if task.name in fresh:
                _require_numbers(candidate, task, fresh[task.name])
                known[task.name] |= fresh[task.name]
                if self._cache:
                    self._cache.store(candidate.identity, task, fresh[task.name])
        return Score(
            tuple(
                TaskScore.of(task.name, {document: known[task.name][document] for document in task.documents[split]})
                for task in tasks
            )
        )


def _require_numbers(candidate: Candidate, task: Task, results: Mapping[int, float]) -> None:
    for document, value in results.items():
        if not math.isfinite(value):
            raise EvaluationFailed(
                f"{candidate.id} gives {value} on document {document} of {task.name}.",
                hint="Its weights are unusable: merge with smaller weights or leave it out.",
            )
