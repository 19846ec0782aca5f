"""How individuals are related, by their weights and by what they get right; computed once a pair, then remembered."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from evaluators.scores.score import Results
from kinship.measures.matrix import KinshipMatrix
from merging.offspring.span import Genome, Span

KEPT = 512  # individuals whose results are kept at hand


class Relations:
    """Kinship by ``metric`` and complementarity of individuals by id.

    span: what holds everybody at the time it is called. genome, score, results: of an individual.
    """

    def __init__(
        self,
        metric: str,
        span: Callable[[], Span],
        genome: Callable[[str], Genome],
        score: Callable[[str], float | None],
        results: Callable[[str], Results],
    ) -> None:
        self._metric = metric
        self._span = span
        self._genome = genome
        self._score = score
        self._results = lru_cache(maxsize=KEPT)(results)
        self._pairs: dict[frozenset[str], float] = {}

    def kinship(self, ids: Sequence[str]) -> KinshipMatrix:
        """Kinship of these individuals, from their genomes: no weights are read."""
        return self._span().kinship({id: self._genome(id) for id in ids}, self._metric)

    def mean_kinship(self, ids: Sequence[str]) -> float | None:
        """The mean over the pairs of ``ids``; None where there is none, or a task vector without direction."""
        value = self.kinship(ids).mean() if len(ids) > 1 else math.nan
        return None if math.isnan(value) else value

    def closeness(self, one: str, other: str) -> float:
        """Kinship of two, larger is closer whatever the metric; NaN where there is none."""
        pair = frozenset((one, other))
        if pair not in self._pairs:
            matrix = self.kinship([one, other])
            self._pairs[pair] = matrix.spec.closeness(matrix[one, other])
        return self._pairs[pair]

    def complementarity(self, one: str, other: str) -> float:
        """The share of the documents both were scored on on which the worse-scoring beats the better-scoring one.

        NaN where they share none. Equal scores: the second of the ids in order counts as the worse.
        """
        better, worse = sorted((one, other), key=lambda id: (-self._value(id), id))
        mine, theirs = self._results(better), self._results(worse)
        beaten = [
            theirs[task][document] > value
            for task, values in mine.items()
            for document, value in values.items()
            if document in theirs.get(task, {})
        ]
        return sum(beaten) / len(beaten) if beaten else math.nan

    def _value(self, id: str) -> float:
        score = self._score(id)
        return -math.inf if score is None else score
