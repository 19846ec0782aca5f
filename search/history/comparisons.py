"""Differences between individuals of a run in what the search selects on, paired by document, with intervals."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol

from evaluators.scores.aggregates import differences, gain
from evaluators.scores.intervals import Sample, paired_differences
from evaluators.scores.score import Estimate, Score
from evaluators.scores.splits import SPLITS, Split
from search.ledger.ledger import Ledger, RunFacts
from search.ledger.records import Record, best_offspring, best_so_far
from search.strategies.recipes import BASE

MOST_LEADERS = 10


class Made(Protocol):
    """What `first_alike` looks at of an individual, be it of a ledger or of an export."""

    @property
    def generation(self) -> int:
        """0: base and founders."""
        ...

    @property
    def identity(self) -> str | None:
        """Of its weights; None where they could not be merged."""
        ...

    @property
    def recipe(self) -> Mapping[str, Any] | None:
        """How it was merged."""
        ...


def first_alike(runs: Sequence[Iterable[Made]]) -> list[int | None]:
    """For each run the place of the first before it that made the same models, generation by generation, of the same
    founders, so that they are one run; None where there is none, or where nothing was made yet.
    """
    courses = [_course(run) for run in runs]
    first = [courses.index(course) if len(course) > 1 else place for place, course in enumerate(courses)]
    return [other if other < place else None for place, other in enumerate(first)]


def _course(run: Iterable[Made]) -> list[list[str]]:
    ordered = sorted(run, key=lambda made: made.generation)
    generations = groupby(ordered, key=lambda made: made.generation)
    return [sorted(made.identity or f"failed: {made.recipe}" for made in group) for _, group in generations]


def score_of(ledger: Ledger, facts: RunFacts, record: Record, split: Split) -> Score:
    """The score of an individual with its documents; for a double, those of the original."""
    results = ledger.results(record.twin or record.id, split)
    return Score.of(results, {name: task["digest"] for name, task in facts.tasks.items()})


class Differences:
    """Differences between a run's individuals, by split; complete scores alone, each read once."""

    def __init__(self, ledger: Ledger, facts: RunFacts, records: Mapping[str, Record]) -> None:
        self._ledger, self._facts, self._records = ledger, facts, records
        self._aggregate = facts.config.aggregate
        self._read: dict[tuple[str, Split], Score | None] = {}

    def score(self, id: str, split: Split) -> Score | None:
        """The complete score of an individual on a split, where it has one."""
        if (id, split) not in self._read:
            summary = self._records[id].scores.get(split)
            known = summary is not None and summary.complete
            self._read[id, split] = score_of(self._ledger, self._facts, self._records[id], split) if known else None
        return self._read[id, split]

    def gain(self, id: str, other: str) -> dict[Split, Estimate]:
        """By how much ``id`` is better than ``other``, with the paired standard error, on each split both have."""
        return {
            split: gain(mine, theirs, self._aggregate, self._founders(split))
            for split in SPLITS
            if (mine := self.score(id, split)) and (theirs := self.score(other, split))
        }

    def intervals(self, pairs: Sequence[tuple[str, str]]) -> list[dict[Split, dict[str, Any]]]:
        """The same as `evaluators.scores.intervals.PairedDifference`, as plain data, of several pairs at once."""
        found: list[dict[Split, dict[str, Any]]] = [{} for _ in pairs]
        for split in SPLITS:
            samples: dict[int, list[Sample]] = {}
            for place, (id, other) in enumerate(pairs):
                mine, theirs = self.score(id, split), self.score(other, split)
                if mine and theirs:
                    samples[place] = differences(mine, theirs, self._aggregate, self._founders(split))
            for place, comparison in zip(samples, paired_differences(list(samples.values())), strict=True):
                found[place][split] = comparison.to_dict()
        return found

    def _founders(self, split: Split) -> list[Score]:
        """On whose range scores are put, where the aggregate asks for that."""
        if self._aggregate.kind != "normalised":
            return []
        return [found for id in self._facts.digests if id != BASE and (found := self.score(id, split))]


def comparisons(between: Differences, records: Sequence[Record]) -> list[dict[str, Any]]:
    """The best offspring and the latest that led the run, against the best founder, their parents and the base.

    Plain data, one row a pair: ``individual``, ``versus``, ``relation``, and ``splits``: see `Differences.intervals`.
    A split is left out where either was not scored to its end.
    """
    by_id = {record.id: record for record in records}
    leaders = best_so_far(records)
    founder = next((id for id in leaders[::-1] if by_id[id].generation == 0), None)
    best = best_offspring(records)
    wanted = dict.fromkeys([*([best.id] if best else []), *(id for id in leaders[::-1] if by_id[id].generation > 0)])
    rows = [
        {"individual": id, "versus": other, "relation": relation}
        for id in list(wanted)[:MOST_LEADERS]
        for other, relation in _rivals(by_id[id], founder)
    ]
    found = between.intervals([(row["individual"], row["versus"]) for row in rows])
    return [row | {"splits": splits} for row, splits in zip(rows, found, strict=True) if splits]


def controls(ledger: Ledger, facts: RunFacts, records: Sequence[Record], best: Record | None) -> list[dict[str, Any]]:
    """The controls of the ``best`` offspring that the run file asks for, as plain data: ``id``, ``of``, ``control``,
    ``founder``, ``identity``, ``error``, ``scores``, and ``splits``: by how much the offspring is better.
    """
    made = [one for one in ledger.controls() if best is not None and one.parents == (best.id,)]
    made = [one for one in made if one.recipe["control"] in facts.config.controls]
    between = Differences(ledger, facts, {record.id: record for record in [*records, *made]})
    splits = between.intervals([(one.parents[0], one.id) for one in made])
    return [
        {
            "id": one.id,
            "of": one.parents[0],
            **one.recipe,
            "identity": one.identity,
            "error": one.error,
            "scores": {split: dict(score.facts) for split, score in sorted(one.scores.items())},
            "splits": found,
        }
        for one, found in zip(made, splits, strict=True)
    ]


def _rivals(record: Record, founder: str | None) -> Iterator[tuple[str, str]]:
    if founder is not None:
        yield founder, "best founder"
    for parent in dict.fromkeys(record.parents):
        if parent != founder:
            yield parent, "parent"
    if BASE not in record.parents:
        yield BASE, "base"
