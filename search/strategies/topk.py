"""Top-k greedy merging, vanilla, with exploration by kinship or complementarity, or with a random partner as control.

Hu et al., arXiv 2410.12613v3, Algorithm 1.
"""

import math
import random
from collections.abc import Sequence
from itertools import combinations

from search.strategies.base import Context, Individual, Population, Proposal, Role
from search.strategies.partners import Choice, Pair, choice_of, new_pairs
from search.strategies.recipes import recipe_for
from search.strategies.settings import MergeSettings, StrategySettings


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
        pairs = new_pairs(self._population, self._settings.k)
        return [*(self._proposal(pair, "greedy") for pair in pairs), *self._exploration()]

    def tell(self, results: Sequence[Individual]) -> None:
        """See `Strategy.tell`."""
        self._previous_top = set(self.top)
        for child in results:
            self._population.add(child)
        self._generation += 1

    def _proposal(self, pair: Pair, role: Role) -> Proposal:
        return Proposal(recipe_for(pair, self._merge), role)

    def _exploration(self) -> list[Proposal]:
        """The best model with one of those it may get; see `choice_of`."""
        choice = choice_of(self._population, self._settings, self._generation)
        if choice is None or not choice.partners:
            return []
        if self._settings.variant == "random":
            # Seeded by generation, so that a resumed run draws the same partner.
            draw = random.Random(f"{self._seed}:{self._generation}")
            return [self._proposal((choice.best, draw.choice(choice.partners)), "random")]
        partner = self._chosen(choice)
        return [self._proposal((choice.best, partner), "exploration")] if partner else []

    def _chosen(self, choice: Choice) -> str | None:
        """The partner by kinship or complementarity; None where no partner has such a value."""
        if self._settings.variant == "complementary":
            values = {id: -self._context.complementarity(choice.best, id) for id in choice.partners}
        else:
            values = {id: self._context.closeness(choice.best, id) for id in choice.partners}
        known = {id: value for id, value in values.items() if not math.isnan(value)}
        return min(known, key=lambda id: known[id], default=None)
