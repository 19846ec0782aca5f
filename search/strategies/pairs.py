"""Every pair of founders, merged once: the baseline that needs no search."""

from collections.abc import Sequence
from itertools import combinations

from search.config import MergeSettings
from search.mating import recipe_for
from search.population import Individual, Population, Proposal
from search.strategies.base import Context


class AllPairs:
    """All pairs of founders in one batch, pairs of the best first; then nothing."""

    def __init__(self, merge: MergeSettings, context: Context) -> None:
        self._merge = merge
        self._ranked = Population(context.founders).ranked()
        self._told = False

    def ask(self) -> list[Proposal]:
        """See `Strategy.ask`."""
        if self._told:
            return []
        places = sorted(combinations(range(len(self._ranked)), 2), key=lambda pair: (sum(pair), pair))
        parents = [(self._ranked[one], self._ranked[other]) for one, other in places]
        return [Proposal(recipe_for(pair, self._merge), "pair") for pair in parents]

    def tell(self, results: Sequence[Individual]) -> None:
        """See `Strategy.tell`."""
        self._told = True
