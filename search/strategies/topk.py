"""Top-k greedy merging, vanilla, with kinship exploration, or with a random partner as control.

Hu et al., arXiv 2410.12613v3, Algorithm 1.
"""

import math
import random
from collections.abc import Sequence
from itertools import combinations

from search.config import StrategySettings
from search.population import Individual, Mating, Population
from search.strategies.base import Closeness


class TopKGreedy:
    """Generation 1 merges all pairs of founders. From then on every pair among the k best of all models so far that
    was not merged before is merged, and by variant the best model with one partner more, until the k best stay the
    same.
    """

    def __init__(
        self, settings: StrategySettings, founders: Sequence[Individual], closeness: Closeness, seed: int = 0
    ) -> None:
        self._settings = settings
        self._population = Population(founders)
        self._closeness = closeness
        self._seed = seed
        self._generation = 1
        self._previous_top: set[str] | None = None

    @property
    def top(self) -> list[str]:
        """The k best so far, best first."""
        return self._population.ranked()[: self._settings.k]

    def ask(self) -> list[Mating]:
        """See `Strategy.ask`."""
        ranked = self._population.ranked()
        if self._generation == 1:
            return [Mating(pair, "greedy") for pair in combinations(ranked, 2)]
        if set(self.top) == self._previous_top:
            return []
        merged = self._population.merged_pairs()
        matings = [Mating(pair, "greedy") for pair in combinations(self.top, 2) if frozenset(pair) not in merged]
        taken = merged | {frozenset(mating.parents) for mating in matings}
        return matings + self._exploration(taken)

    def tell(self, offspring: Sequence[Individual]) -> None:
        """See `Strategy.tell`."""
        self._previous_top = set(self.top)
        for child in offspring:
            self._population.add(child)
        self._generation += 1

    def _exploration(self, taken: set[frozenset[str]]) -> list[Mating]:
        """The best model with a partner from the pool, of those it was not merged with yet."""
        if self._settings.variant == "vanilla" or not self.top:
            return []
        best = self.top[0]
        partners = [id for id in self._pool() if id != best and frozenset((best, id)) not in taken]
        if self._settings.variant == "random":
            # Seeded by generation, so that a resumed run draws the same partner.
            draw = random.Random(f"{self._seed}:{self._generation}")
            return [Mating((best, draw.choice(partners)), "random")] if partners else []
        related = [(self._closeness(best, id), id) for id in partners]
        related = [(value, id) for value, id in related if not math.isnan(value)]
        return [Mating((best, min(related)[1]), "exploration")] if related else []

    def _pool(self) -> list[str]:
        match self._settings.partner_pool:
            case "previous":
                return sorted(self._population.generation(self._generation - 2))
            case "outside":
                return sorted(set(self._population.ranked()) - set(self.top))
            case _:
                return sorted(self._population.ranked())
