"""An evaluator with what it has found before: candidates in, scores out."""

from collections.abc import Callable, Iterator, Mapping

from evaluators.base import Candidate, Documents, Evaluator, is_result
from evaluators.cache import ScoreCache
from evaluators.scores.score import Estimate, Results, Score, TaskScore
from evaluators.scores.splits import SPLITS, Split
from kinship.errors import EvaluationFailed, KinshipError

FIRST_BLOCK, LAST_BLOCK = 32, 512


class CachedEvaluator:
    """Scores candidates of ``evaluator``; documents whose results are in ``cache`` are not run again.

    ``documents`` are a split of every task, or documents by task name. Without a cache nothing is remembered. It is
    used by one thread, as its evaluator is; any number of processes may share the file of the cache.
    """

    def __init__(self, evaluator: Evaluator, cache: ScoreCache | None = None) -> None:
        self.evaluator = evaluator
        self._cache = cache
        self._tasks = {task.name: task for task in evaluator.tasks}

    @property
    def splits(self) -> list[Split]:
        """Those that the tasks have; the search split alone where nothing is held out."""
        return [split for split in SPLITS if all(split in task.documents for task in self._tasks.values())]

    def score(
        self,
        candidate: Candidate,
        split: Split | Documents,
        progress: Callable[[int, int], None] | None = None,
    ) -> Score:
        """The candidate's score; raises `EvaluationFailed` where it has none, and as `Candidate.require_unchanged`.

        Where ``progress`` is given it is told (documents done, documents in all), and the documents are run in blocks,
        each kept in the cache once it is done.
        """
        known, missing = self.missing(candidate.identity, split)
        total = sum(len(documents) for documents in missing.values())
        done = 0
        for block in _blocks(missing) if progress else [missing] if missing else []:
            fresh = self._run(candidate, block)
            self.accept(candidate.identity, fresh, candidate.id)
            for name, results in fresh.items():
                known[name] |= results
            done += sum(len(documents) for documents in block.values())
            if progress:
                progress(done, total)
        return self.assemble(known, split)

    def _run(self, candidate: Candidate, documents: Documents) -> dict[str, dict[int, float]]:
        try:
            found = self.evaluator.run(candidate, documents)
        except KinshipError:
            candidate.require_unchanged()
            raise
        candidate.require_unchanged()
        return found

    def missing(
        self, identity: str, documents: Split | Documents
    ) -> tuple[dict[str, dict[int, float]], dict[str, list[int]]]:
        """What the cache knows of the weights ``identity`` on ``documents``, and the documents still to be run.

        Both by task name; the first has every task asked for, the second only those with something to run.
        """
        wanted = self._documents(documents)
        known: dict[str, dict[int, float]] = {}
        for name, ids in wanted.items():
            found = self._cache.load(identity, self._tasks[name]) if self._cache else {}
            known[name] = {document: found[document] for document in ids if document in found}
        missing = {name: [document for document in ids if document not in known[name]] for name, ids in wanted.items()}
        return known, {name: ids for name, ids in missing.items() if ids}

    def accept(self, identity: str, results: Results, label: str = "") -> None:
        """Put ``results`` of the weights ``identity`` into the cache; durable on return.

        ``label`` is what people call the weights. Raises `EvaluationFailed`, and keeps nothing, where a value is no
        `is_result`.
        """
        for name, values in results.items():
            _require_numbers(label or f"The model {identity[:12]}", name, values)
        if self._cache:
            self._cache.store_all(identity, [(self._tasks[name], values) for name, values in results.items()], label)

    def assemble(self, results: Results, documents: Split | Documents, partial: Estimate | None = None) -> Score:
        """The score that ``results`` make on ``documents``, of which none may be missing.

        ``partial``: the estimate of the full score, where ``documents`` are not all that there are.
        """
        wanted = self._documents(documents)
        scores = (
            TaskScore.of(name, {document: results[name][document] for document in ids}, self._tasks[name].digest)
            for name, ids in wanted.items()
        )
        return Score(tuple(scores), partial)

    def _documents(self, documents: Split | Documents) -> Documents:
        if isinstance(documents, str):
            return {name: task.documents[documents] for name, task in self._tasks.items()}
        return {name: documents[name] for name in self._tasks if name in documents}


def _blocks(documents: Documents) -> Iterator[dict[str, list[int]]]:
    """Task by task in blocks of growing size: the first soon tells the rate, later ones cost few interruptions."""
    size = FIRST_BLOCK
    for name, ids in documents.items():
        start = 0
        while start < len(ids):
            yield {name: list(ids[start : start + size])}
            start, size = start + size, min(2 * size, LAST_BLOCK)


def _require_numbers(candidate: str, task: str, results: Mapping[int, float]) -> None:
    for document, value in results.items():
        if not is_result(value):
            raise EvaluationFailed(
                f"{candidate} gives {value} on document {document} of {task}.",
                hint="Its weights are unusable: merge with smaller weights or leave it out.",
            )
