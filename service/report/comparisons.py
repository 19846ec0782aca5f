"""Paired intervals of a run's best individuals against those that they have to beat."""

from collections.abc import Iterator, Mapping
from typing import Any

from evaluators.aggregates import Aggregate, shares
from evaluators.intervals import compare
from evaluators.scores import Score
from evaluators.splits import SPLITS, Split
from search.export import score_of
from search.ledger import Ledger, RunFacts
from search.mating import BASE
from search.records import Record, best_offspring, best_so_far

MOST_LEADERS = 10


def comparisons(ledger: Ledger) -> list[dict[str, Any]]:
    """The best offspring and the latest that led the run, against the best founder, their parents and the base.

    Plain data, one row a pair: ``individual``, ``versus``, ``relation``, and by split the difference in what the search
    selects on (`evaluators.intervals.Comparison`; for the worst task, in the mean of the tasks). A split is left out
    where either was not scored to its end.
    """
    facts = ledger.facts()
    if facts is None:
        return []
    records = {record.id: record for record in ledger.records()}
    leaders = best_so_far(list(records.values()))
    founders = [id for id in leaders if id in facts.digests]
    best = best_offspring(records.values())
    wanted = list(
        dict.fromkeys([*([best.id] if best else []), *(id for id in leaders[::-1] if id not in facts.digests)])
    )
    scores = _Scores(ledger, facts, records)
    rows = []
    for id in wanted[:MOST_LEADERS]:
        for other, relation in _rivals(records[id], founders[-1] if founders else None):
            found = {
                split: compare(mine, theirs, shares=scores.shares(mine, split)).to_dict()
                for split in SPLITS
                if (mine := scores.of(id, split)) and (theirs := scores.of(other, split))
            }
            if found:
                rows.append({"individual": id, "versus": other, "relation": relation, "splits": found})
    return rows


def _rivals(record: Record, founder: str | None) -> Iterator[tuple[str, str]]:
    if founder is not None:
        yield founder, "best founder"
    for parent in dict.fromkeys(record.parents):
        if parent != founder:
            yield parent, "parent"
    if BASE not in record.parents:
        yield BASE, "base"


class _Scores:
    """Scores with their documents, read once."""

    def __init__(self, ledger: Ledger, facts: RunFacts, records: Mapping[str, Record]) -> None:
        self._ledger, self._facts, self._records = ledger, facts, records
        self._aggregate = Aggregate.model_validate(facts.config.get("aggregate", {}))
        self._read: dict[tuple[str, Split], Score | None] = {}

    def of(self, id: str, split: Split) -> Score | None:
        """The complete score of an individual on a split, where it has one."""
        if (id, split) not in self._read:
            summary = self._records[id].scores.get(split)
            known = summary is not None and summary.complete
            self._read[id, split] = score_of(self._ledger, self._facts, self._records[id], split) if known else None
        return self._read[id, split]

    def shares(self, score: Score, split: Split) -> list[float] | None:
        """What each task counts; None: all the same."""
        founders = [found for id in self._facts.digests if id != BASE and (found := self.of(id, split))]
        return shares(score, self._aggregate, founders)
