"""What a merge of two models is expected to gain, by a model of the merges that a run has on record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from kinship.arrays import Float64
from search.history.rank_correlation import RankCorrelation, rank_correlation
from search.ledger.individuals import Individuals
from search.ledger.ledger import Ledger, RunFacts
from search.strategies.recipes import recipe_for

# Of whole families, before anything is merged: see docs/strategies.md; a test reckons the figures again.
EXPECTATION = (
    "Nothing known beforehand was found to predict what a search gains: over five families a model of the best "
    "founder's score errs by 1.18 points, their mean gain alone by 1.07, each family predicted from the others."
)
FEWEST = 6  # merges to learn from
RIDGE = 1.0  # as if so many merges had shown that nothing matters


@dataclass(frozen=True)
class Pair:
    """Two models that may be merged: their ids, their kinship, and their scores, higher is better."""

    models: tuple[str, str]
    kinship: float
    scores: tuple[float, float]

    @property
    def mean(self) -> float:
        """The score that a merge without gain has."""
        return sum(self.scores) / 2

    @property
    def features(self) -> tuple[float, float, float]:
        """What a gain is predicted from: kinship, and the scores' mean and distance."""
        return self.kinship, self.mean, abs(self.scores[0] - self.scores[1])


@dataclass(frozen=True)
class Merge:
    """A pair that was merged, and what that gained over the mean of the two scores."""

    pair: Pair
    gain: float


@dataclass(frozen=True)
class GainModel:
    """Gains as a linear function of `Pair.features`, each in units of its own spread, by ridge regression.

    Whatever takes its place has these two methods.
    """

    centre: Float64
    spread: Float64
    slopes: Float64
    mean: float

    @classmethod
    def fit(cls, merges: Sequence[Merge]) -> Self:
        """Learn from at least one merge."""
        return cls.of(_table([merge.pair for merge in merges]), np.array([merge.gain for merge in merges]))

    @classmethod
    def of(cls, table: Float64, gains: Float64) -> Self:
        """Learn from a ``table`` of features (n, features) what is gained, (n,)."""
        centre, spread = table.mean(axis=0), table.std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        scaled = (table - centre) / spread
        inner = scaled.T @ scaled + RIDGE * np.eye(scaled.shape[1])
        slopes = np.linalg.solve(inner, scaled.T @ (gains - gains.mean()))
        return cls(centre, spread, slopes, float(gains.mean()))

    def expected(self, pairs: Sequence[Pair]) -> Float64:
        """The gain of merging each pair, (n,)."""
        return self.gain(_table(pairs))

    def gain(self, table: Float64) -> Float64:
        """What is gained with features (n, features), (n,)."""
        return self.mean + (table - self.centre) / self.spread @ self.slopes


def worth(merges: Sequence[Merge]) -> RankCorrelation | None:
    """What the model's order of pairs is worth: each merge predicted from all others, against what it gained.

    The mean gain of the others is left out of a prediction: it is below that of all just where the merge left out was
    a good one, which alone would make any model look worse than none. None for fewer than `FEWEST` merges.
    """
    if len(merges) < FEWEST:
        return None
    predicted = []
    for place, merge in enumerate(merges):
        model = GainModel.fit([*merges[:place], *merges[place + 1 :]])
        everyone = _table([other.pair for other in merges]).mean(axis=0)
        features = (np.array(merge.pair.features) - everyone) / model.spread
        predicted.append(float(features @ model.slopes))
    return rank_correlation(predicted, [merge.gain for merge in merges], [merge.pair.models for merge in merges])


def left_out_errors(table: Float64, gains: Float64) -> tuple[float, float]:
    """Root mean square errors of predicting each gain (n,) from all others: by the model of features (n, features), and
    by the others' mean gain alone. What does not beat that mean predicts nothing.

    >>> one = np.arange(6.0)
    >>> by_model, by_mean = left_out_errors(one[:, None], one)
    >>> by_model < by_mean
    True
    """
    errors = []
    for place in range(len(gains)):
        others = np.arange(len(gains)) != place
        known = gains[others]
        found = GainModel.of(table[others], known).gain(table[[place]])[0]
        errors.append((found - gains[place], known.mean() - gains[place]))
    by_model, by_mean = np.sqrt((np.array(errors) ** 2).mean(axis=0))
    return float(by_model), float(by_mean)


def recorded_merges(ledger: Ledger, facts: RunFacts, metric: str) -> list[Merge]:
    """Merges of two founders that the run made as its file says merges are made, and scored to the end, doubles once.

    Not of later generations: their parents are kin and gain little, whoever they are, so that any model that knows
    kinship would seem to tell gains apart.
    """
    individuals = Individuals(ledger, facts)
    records, config = individuals.records, facts.config
    found = []
    for record in records.values():
        if len(record.parents) != 2 or not record.ranks:
            continue
        one, other = (records[parent] for parent in record.parents)
        if one.role != "founder" or other.role != "founder":
            continue
        if not (one.fitness is not None and other.fitness is not None and record.fitness is not None):
            continue
        if recipe_for(record.parents, config.merge).to_dict() != record.recipe:
            continue
        genomes = {parent.id: individuals.genome(parent.id) for parent in (one, other)}
        kinship = individuals.span.kinship(genomes, metric)[one.id, other.id]
        pair = Pair((one.id, other.id), kinship, (one.fitness, other.fitness))
        if np.isfinite(pair.features).all():
            found.append(Merge(pair, record.fitness - pair.mean))
    return found


def _table(pairs: Sequence[Pair]) -> Float64:
    return np.array([pair.features for pair in pairs], dtype=np.float64).reshape(len(pairs), 3)
