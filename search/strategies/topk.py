"""Top-k greedy merging, vanilla, with exploration by kinship or complementarity, or with a random partner as control.

Hu et al., arXiv 2410.12613v3, Algorithm 1.
"""

import math
import random
from collections.abc import Sequence
from itertools import combinations

from search.strategies.base import Context, Individual, Population, Proposal, Role
from search.strategies.recipes import recipe_for
from search.strategies.settings import MergeSettings, StrategySettings

Pair = tuple[str, str]


class TopKGreedy:
    """Generation 1 merges all pairs of founders. From then on every pair among the k best of all models so far that
    was not merged before is merged, and by variant the best model with one partner more, until the k best stay the
    same.
    """

    def __init__(self, settings: StrategySettings, merge: MergeSettings, context: Context, seed: int = 0) -> None:
        self._settings = settings
        self._merge = merge
        self._context = context
        self._population = Population(context.founders)
        self._seed = seed
        self._generation = 1
        self._previous_top: set[str] | None = None

    @property
    def top(self) -> list[str]:
        """The k best so far, best first."""
        return self._population.ranked()[: self._settings.k]

    def ask(self) -> list[Proposal]:
        """See `Strategy.ask`."""
        if self._generation == 1:
            return [self._proposal(pair, "greedy") for pair in combinations(self._population.ranked(), 2)]
        if set(self.top) == self._previous_top:
            return []
        merged = self._population.merged_pairs()
        pairs = [pair for pair in combinations(self.top, 2) if frozenset(pair) not in merged]
        taken = merged | {frozenset(pair) for pair in pairs}
        return [*(self._proposal(pair, "greedy") for pair in pairs), *self._exploration(taken)]

    def tell(self, results: Sequence[Individual]) -> None:
        """See `Strategy.tell`."""
        self._previous_top = set(self.top)
        for child in results:
            self._population.add(child)
        self._generation += 1

    def _proposal(self, pair: Pair, role: Role) -> Proposal:
        return Proposal(recipe_for(pair, self._merge), role)

    def _exploration(self, taken: set[frozenset[str]]) -> list[Proposal]:
        """The best model with a partner from the pool, of those it was not merged with yet."""
        if self._settings.variant == "vanilla" or not self.top:
            return []
        best = self.top[0]
        partners = [id for id in self._pool() if id != best and frozenset((best, id)) not in taken]
        if self._settings.variant == "random":
            # Seeded by generation, so that a resumed run draws the same partner.
            draw = random.Random(f"{self._seed}:{self._generation}")
            return [self._proposal((best, draw.choice(partners)), "random")] if partners else []
        partner = self._chosen(best, partners)
        return [self._proposal((best, partner), "exploration")] if partner else []

    def _chosen(self, best: str, partners: Sequence[str]) -> str | None:
        """The partner by kinship or complementarity; None where no partner has such a value."""
        if self._settings.variant == "complementary":
            values = {id: -self._context.complementarity(best, id) for id in partners}
        else:
            values = {id: self._context.closeness(best, id) for id in partners}
        known = {id: value for id, value in values.items() if not math.isnan(value)}
        return min(self._population.by_weights(known), key=lambda id: known[id], default=None)

    def _pool(self) -> list[str]:
        match self._settings.partner_pool:
            case "previous":
                pool = set(self._population.generation(self._generation - 2))
            case "outside":
                pool = set(self._population.ranked()) - set(self.top)
            case _:
                pool = set(self._population.ranked())
        return self._population.by_weights(pool)
