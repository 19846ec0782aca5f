"""From individuals to scores: results come from the ledger, else the cache, else the workers.

Whatever the workers say is in the ledger before anything is made of it. Decisions are taken when a block of results is
complete, so that they do not depend on who was done first.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from evaluators.base import Documents
from evaluators.cached import CachedEvaluator
from evaluators.racing.race import Race, RaceSettings, Verdict
from evaluators.scores.aggregates import Aggregate, fitness, shares
from evaluators.scores.score import Estimate, Results, Score, as_dict
from evaluators.scores.splits import Split
from evaluators.workers.base import Failure, WorkerPool
from kinship.errors import EvaluationFailed, InputsChanged
from search.ledger.individuals import Individuals
from search.ledger.ledger import Ledger
from search.ledger.records import Failed, Record, Summary
from search.running.events import Observer, failure
from search.running.workers import Work
from search.strategies.recipes import BASE

MakeWork = Callable[[str, Documents], Work]


class Evaluation:
    """Scores ``individuals``, whose records it keeps up to date.

    work: makes the payload for a worker from (id, documents). require_unchanged: asked before any result of a worker is
    kept; raises `InputsChanged`. Raises `EvaluationFailed` where the base or a founder cannot be scored, since a search
    makes no sense without.
    """

    def __init__(
        self,
        individuals: Individuals,
        ledger: Ledger,
        scorer: CachedEvaluator,
        pool: WorkerPool,
        aggregate: Aggregate,
        work: MakeWork,
        require_unchanged: Callable[[], None],
        observer: Observer,
    ) -> None:
        self._individuals = individuals
        self._records = individuals.records
        self._ledger = ledger
        self._scorer = scorer
        self._pool = pool
        self._aggregate = aggregate
        self._work = work
        self._require_unchanged = require_unchanged
        self._observer = observer
        self._tasks = scorer.evaluator.tasks
        self.splits = scorer.splits
        self._known: dict[tuple[str, Split], dict[str, dict[int, float]]] = {}
        self._range: dict[Split, list[Score]] = {}

    def score(self, ids: Iterable[str], split: Split) -> None:
        """Score individuals on all documents of ``split``; those that have a score, or have failed, are passed over."""
        todo = [id for id in ids if split not in self._records[id].scores and self._records[id].error is None]
        whole = {task.name: task.documents[split] for task in self._tasks}
        originals = dict.fromkeys(self._records[id].twin or id for id in todo)
        self._block(split, {id: whole for id in originals if split not in self._records[id].scores})
        self._share(todo, split)
        self._known.clear()

    def race(self, ids: Sequence[str], rivals: Sequence[str], k: int, settings: RaceSettings, seed: int) -> None:
        """Score individuals on the search split side by side, and no further those that will not enter the ``k`` best.

        rivals: fully scored individuals that they are compared with. Replaying a race that was interrupted asks for
        what was asked for, so that only missing results are worked on.
        """
        originals = [id for id in ids if self._records[id].twin is None and self._records[id].identity is not None]
        results = {id: self._individuals.results(id, "search") for id in [BASE, *rivals, *self._founders()]}
        founders = [self._scorer.assemble(results[id], "search") for id in self._founders()]
        weights = shares(founders[0], self._aggregate, founders)
        names = [task.name for task in self._tasks]
        race = Race(
            settings,
            {task.name: task.documents["search"] for task in self._tasks},
            {id: results[id] for id in rivals},
            originals,
            k,
            seed,
            controls={BASE: results[BASE]},
            shares=dict(zip(names, weights, strict=True)) if weights else None,
            prices=self._prices,
        )
        while asked := race.ask():
            race.tell(self._block("search", asked))
            for id, verdict in race.stopped().items():
                self._settle(id, "search", verdict)
        self._share(ids, "search")
        self._known.clear()

    @cached_property
    def _prices(self) -> dict[str, float] | None:
        """What a document of each task costs, where that is known of all."""
        asked = {task.name: task.price for task in self._tasks if task.price is not None}
        return {name: price() for name, price in asked.items()} if len(asked) == len(self._tasks) else None

    def _block(self, split: Split, asked: Mapping[str, Documents]) -> dict[str, Results | None]:
        """Results of ``asked`` by individual and task; None for those that failed, now or earlier."""
        works = []
        for id, documents in asked.items():
            missing = self._missing(self._records[id], split, documents)
            if missing and self._records[id].error is None:
                works.append(self._work(id, missing))
            self._settle(id, split)
        if works:
            total = sum(len(documents) for work in works for documents in work.documents.values())
            facts = {"phase": "scoring", "split": split, "individuals": [work.id for work in works], "documents": total}
            self._observer("phase", facts)
        for index, outcome in self._pool.run(works):
            self._take(works[index], split, outcome)
        for id in asked:
            self._settle(id, split)
        return {id: self._of(id, split, documents) for id, documents in asked.items()}

    def _missing(self, record: Record, split: Split, documents: Documents) -> dict[str, list[int]]:
        """What only a worker can tell; what the cache can is put into the ledger."""
        known = self._load(record.id, split)
        missing = {task: [id for id in ids if id not in known.get(task, {})] for task, ids in documents.items()}
        missing = {task: ids for task, ids in missing.items() if ids}
        if missing and record.identity is not None and record.error is None:
            cached, missing = self._scorer.missing(record.identity, missing)
            self._keep(record.id, split, {task: values for task, values in cached.items() if values})
        return missing

    def _take(self, work: Work, split: Split, outcome: Results | Failure | InputsChanged) -> None:
        """Make what a worker says durable, then tell of it."""
        self._require_unchanged()
        if isinstance(outcome, InputsChanged):  # elsewhere, where this process does not see it
            raise outcome
        if isinstance(outcome, Failure):
            self._fail(work.id, Failed(split, outcome.kind, outcome.message, outcome.traceback, outcome.attempts))
            return
        try:
            _require_all(work, outcome)
            self._scorer.accept(work.identity, outcome, work.id)
        except EvaluationFailed as error:
            self._fail(work.id, Failed(split, "raised", error.message))
            return
        self._keep(work.id, split, outcome)
        if split not in self._records[work.id].scores:
            done = sum(len(values) for values in self._load(work.id, split).values())
            self._observer("results", {"individual": work.id, "split": split, "documents": done})

    def _keep(self, id: str, split: Split, results: Results) -> None:
        """Write results down, and in the same transaction the score that they complete."""
        if not results:
            return
        known = self._load(id, split)
        for task, values in results.items():
            known.setdefault(task, {}).update(values)
        score = self._due(id, split)
        self._ledger.record_results(id, split, results, score)
        if score is not None:
            self._tell(id, split, score)

    def _fail(self, id: str, failed: Failed) -> None:
        record = self._records[id]
        if record.generation == 0:
            raise EvaluationFailed(
                f"{id} could not be scored: {failed.message}",
                hint="Every offspring is made of the base and the founders: mend this model, or leave it out.",
            )
        self._ledger.record_failure(id, failed)
        self._records[id] = replace(record, error=failed.message)
        self._observer("failed", failure(id, failed))

    def _settle(self, id: str, split: Split, verdict: Verdict | None = None) -> None:
        score = self._due(id, split, verdict)
        if score is not None:
            self._acknowledge(id, split, score)

    def _due(self, id: str, split: Split, verdict: Verdict | None = None) -> Summary | None:
        """The score that an individual does not have yet, if its documents are all there, or a ``verdict``."""
        record, known = self._records[id], self._load(id, split)
        whole = all(len(known.get(task.name, ())) == len(task.documents[split]) for task in self._tasks)
        missed = split in record.scores or record.error is not None or not (whole or verdict)
        if missed or not self._range_known(split):
            return None
        seen: Split | Documents = split if whole else {task: sorted(values) for task, values in known.items()}
        score = self._scorer.assemble(known, seen, _rounded(verdict.estimate) if verdict and not whole else None)
        return self._summary(score, split, verdict)

    def _summary(self, score: Score, split: Split, verdict: Verdict | None) -> Summary:
        value, stderr = fitness(score, self._aggregate, self._range.get(split, ()))
        facts = score.to_dict() | as_dict(Estimate(value, stderr))
        if verdict is not None:
            facts["stopped"] = {
                "rival": verdict.rival,
                "statistic": _short(verdict.statistic) if math.isfinite(verdict.statistic) else None,
                "boundary": _short(verdict.boundary),
                "look": verdict.look,
            }
        return Summary(value, None if math.isnan(stderr) else stderr, score.complete, facts)

    def _acknowledge(self, id: str, split: Split, score: Summary) -> None:
        self._ledger.record_scores(split, {id: score})
        self._tell(id, split, score)

    def _tell(self, id: str, split: Split, score: Summary) -> None:
        record = self._records[id]
        self._records[id] = replace(record, scores={**record.scores, split: score})
        twin = {"twin": record.twin} if record.twin else {}
        self._observer("scored", {"individual": id, "split": split, **score.facts, **twin})

    def _share(self, ids: Iterable[str], split: Split) -> None:
        """Doubles get what their originals have."""
        for id in ids:
            record = self._records[id]
            if record.twin is None or record.error is not None or split in record.scores:
                continue
            original = self._records[record.twin]
            if split in original.scores:
                self._acknowledge(id, split, original.scores[split])
            elif original.error is not None:
                message = f"It has the weights of {original.id}, which failed: {original.error}"
                self._fail(id, Failed(split, "raised", message))

    def _range_known(self, split: Split) -> bool:
        """Whether scores can be put on the founders' range, where the aggregate asks for that."""
        if self._aggregate.kind != "normalised" or split in self._range:
            return True
        wanted = sum(len(task.documents[split]) for task in self._tasks)
        if any(sum(map(len, self._load(id, split).values())) < wanted for id in self._founders()):
            return False
        self._range[split] = [self._scorer.assemble(self._load(id, split), split) for id in self._founders()]
        return True

    def _founders(self) -> list[str]:
        """The founders, or whom they double."""
        return [record.twin or record.id for record in self._records.values() if record.role == "founder"]

    def _load(self, id: str, split: Split) -> dict[str, dict[int, float]]:
        if (id, split) not in self._known:
            self._known[id, split] = self._ledger.results(id, split)
        return self._known[id, split]

    def _of(self, id: str, split: Split, documents: Documents) -> Results | None:
        known = self._load(id, split)
        if any(document not in known.get(task, {}) for task, ids in documents.items() for document in ids):
            return None
        return {task: {document: known[task][document] for document in ids} for task, ids in documents.items()}


def _require_all(work: Work, results: Results) -> None:
    for task, documents in work.documents.items():
        absent = [document for document in documents if document not in results.get(task, {})]
        if absent:
            raise EvaluationFailed(
                f"The evaluator gave no result for {len(absent)} documents of {task}, the first of them {absent[0]}."
            )


def _rounded(estimate: Estimate) -> Estimate:
    """What linear algebra gives to the last bits depends on where its operands lie in memory: these are dropped."""
    return Estimate(_short(estimate.value), _short(estimate.stderr))


def _short(value: float) -> float:
    return float(f"{value:.10g}")
