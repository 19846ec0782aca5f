"""A run's individuals at hand: what strategies are told of them, from their genomes and from what they get right."""

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np

from evaluators.scores.aggregates import shares
from evaluators.scores.score import Score
from evaluators.scores.splits import Split
from kinship.arrays import Float64
from kinship.measures.matrix import KinshipMatrix
from merging.offspring.span import Genome, Span
from merging.recipe.schema import Recipe, parse_recipe
from search.ledger.ledger import Ledger, RunFacts
from search.ledger.records import Record
from search.strategies.base import Answers, Context, Strategy
from search.strategies.make import make_strategy
from search.strategies.recipes import BASE

GENOMES, RESULTS = 2048, 512  # individuals of whom these are kept at hand


class Individuals:
    """Everybody in ``ledger``, by id, and how they are related. It writes nothing: who writes keeps it up to date.

    The coordinator and a replay (`search.history.audit`) see a run through this alone, so that a strategy is told the
    same by both. records: by id, in the order proposed. span: of which everybody is a linear combination.
    """

    def __init__(self, ledger: Ledger, facts: RunFacts) -> None:
        self.records: dict[str, Record] = {record.id: record for record in ledger.records()}
        self.span = Span.over(ledger.table())
        self._ledger = ledger
        self._facts = facts
        self._genome = lru_cache(maxsize=GENOMES)(lambda id: ledger.genomes([id])[id])
        self._search_results = lru_cache(maxsize=RESULTS)(lambda id: self.results(id, "search"))
        self._closeness: dict[frozenset[str], float] = {}

    def include(self, records: Sequence[Record], span: Span) -> None:
        """Take in individuals that the ledger has now; ``span``: of which they are linear combinations, too."""
        self.records |= {record.id: record for record in records}
        self.span = span

    def genome(self, id: str) -> Genome:
        """The coefficients of an individual over the whole `span`; raises `KeyError` where it could not be merged."""
        return self._genome(id).padded(len(self.span.ids))

    def recipe(self, id: str) -> Recipe:
        """How an individual was made of others."""
        return parse_recipe(self.records[id].recipe)

    def results(self, id: str, split: Split) -> dict[str, dict[int, float]]:
        """All results of an individual by task and document; for a double, those of the original."""
        return self._ledger.results(self.records[id].twin or id, split)

    def kinship(self, ids: Sequence[str]) -> KinshipMatrix:
        """Kinship by the run's metric, from genomes: no weights are read."""
        return self.span.kinship({id: self.genome(id) for id in ids}, self._facts.config.strategy.metric)

    def mean_kinship(self, ids: Sequence[str]) -> float | None:
        """The mean over the pairs of ``ids``; None where there is none, or a task vector without direction."""
        value = self.kinship(ids).mean() if len(ids) > 1 else math.nan
        return None if math.isnan(value) else value

    def closeness(self, one: str, other: str) -> float:
        """Kinship of two, larger is closer whatever the metric; NaN where there is none. Computed once a pair."""
        pair = frozenset((one, other))
        if pair not in self._closeness:
            matrix = self.kinship([one, other])
            self._closeness[pair] = matrix.spec.closeness(matrix[one, other])
        return self._closeness[pair]

    def complementarity(self, one: str, other: str) -> float:
        """The share of the documents both were scored on on which the worse-scoring beats the better-scoring one.

        NaN where they share none. Which of two with equal scores counts as the worse: see `Record.standing`.
        """
        better, worse = sorted((one, other), key=lambda id: self.records[id].standing)
        mine, theirs = self._search_results(better), self._search_results(worse)
        beaten = [
            theirs[task][document] > value
            for task, values in mine.items()
            for document, value in values.items()
            if document in theirs.get(task, {})
        ]
        return sum(beaten) / len(beaten) if beaten else math.nan

    def cosine(self, one: str, other: str) -> float:
        """Of the whole task vectors of two; NaN where one has none."""
        return self.span.kinship({id: self.genome(id) for id in (one, other)}, "cosine")[one, other]

    def answers(self, id: str) -> Answers:
        """What an individual got for each document of the search, and what these count in its score."""
        return Answers(np.concatenate([task.values for task in self._score(id).tasks]), self._weights)

    @cached_property
    def _weights(self) -> Float64:
        """What a difference in each document counts in the score; of no use where the worst of tasks is the score."""
        founders = [self._score(id) for id in self._facts.table.rows[1:]]
        factors = shares(founders[0], self._facts.config.aggregate, founders)
        if factors is None:
            raise ValueError("the worst of tasks is no sum over documents")
        counts = [len(task.values) for task in founders[0].tasks]
        return np.repeat(np.array(factors) / counts, counts)

    def _score(self, id: str) -> Score:
        return Score.of(self._search_results(id), {name: task["digest"] for name, task in self._facts.tasks.items()})

    def strategy(self) -> Strategy:
        """The run's strategy as it was before it was told of any offspring; base and founders must be scored."""
        config, founders = self._facts.config, self._facts.table
        context = Context(
            self.records[BASE].individual(),
            tuple(self.records[id].individual() for id in founders.rows[1:]),
            founders.names,
            self.closeness,
            self.complementarity,
            lambda: founders.total()[0],
            self.cosine,
            self.answers,
        )
        return make_strategy(config.strategy, config.merge, context, config.seed, self._facts.budget)
