"""An individual against its parents, document by document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluators.scores.splits import SPLITS, Split
from search.ledger.ledger import Ledger
from search.ledger.records import Record
from service.answers.scores import Difference

MOST_NAMED = 50  # documents


@dataclass(frozen=True)
class Duel:
    """One task on one split: how many documents went better, worse and alike, and which the first of them are."""

    task: str
    split: Split
    better: int
    worse: int
    equal: int
    won: tuple[int, ...]
    lost: tuple[int, ...]


@dataclass(frozen=True)
class Rival:
    """A parent: the duels with it, and the difference of the scores with its interval by split."""

    id: str
    duels: tuple[Duel, ...]
    differences: Mapping[Split, Difference]


def duel(task: str, split: Split, mine: Mapping[int, float], theirs: Mapping[int, float]) -> Duel:
    """Results of two models by document, where both have one.

    >>> duel("add", "search", {1: 1.0, 2: 0.0, 3: 1.0, 5: 1.0}, {1: 0.0, 2: 1.0, 3: 1.0, 4: 1.0})
    Duel(task='add', split='search', better=1, worse=1, equal=1, won=(1,), lost=(2,))
    """
    both = sorted(mine.keys() & theirs.keys())
    won = [document for document in both if mine[document] > theirs[document]]
    lost = [document for document in both if mine[document] < theirs[document]]
    equal = len(both) - len(won) - len(lost)
    return Duel(task, split, len(won), len(lost), equal, tuple(won[:MOST_NAMED]), tuple(lost[:MOST_NAMED]))


def rivals(ledger: Ledger, records: Sequence[Record], id: str) -> list[Rival]:
    """``id`` against each of its parents. Cost: reading all their results, and bootstrap intervals: 0.1 s or so."""
    from search.history.comparisons import Differences

    facts, by_id = ledger.facts(), {record.id: record for record in records}
    assert facts is not None
    parents = list(dict.fromkeys(by_id[id].parents))
    found = Differences(ledger, facts, by_id).intervals([(id, parent) for parent in parents])
    return [
        Rival(
            parent,
            tuple(_duels(ledger, by_id[id], by_id[parent])),
            {split: Difference.model_validate(difference) for split, difference in differences.items()},
        )
        for parent, differences in zip(parents, found, strict=True)
    ]


def _duels(ledger: Ledger, one: Record, other: Record) -> list[Duel]:
    found = []
    for split in SPLITS:
        mine, theirs = (ledger.results(record.twin or record.id, split) for record in (one, other))
        found += [duel(task, split, mine[task], theirs[task]) for task in mine if task in theirs]
    return found
