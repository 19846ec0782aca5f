"""An evaluator with a memory: candidates in, scores out."""

from evaluators.base import Candidate, Evaluator
from evaluators.cache import ScoreCache
from evaluators.scores import Score, TaskScore
from evaluators.splits import Split


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
                known[task.name] |= fresh[task.name]
                if self._cache:
                    self._cache.store(candidate.identity, task, fresh[task.name])
        return Score(
            tuple(
                TaskScore.of(task.name, {document: known[task.name][document] for document in task.documents[split]})
                for task in tasks
            )
        )
