"""What every search has to beat: greedy soup, all pairs, and one average at several scales."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from merging.recipe.schema import Setting
from merging.registry import get_method
from search.strategies.base import Context, Individual, Population, Proposal
from search.strategies.recipes import recipe_for, recipe_of
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.span_points import average, point_recipe, require_weights

SCALES = tuple(np.arange(2, 13) / 4)  # 0.5 to 3: eleven


class GreedySoup:
    """Greedy soup (Wortsman et al., arXiv 2203.05482, Recipe 1): founders from the best down join a uniform average as
    long as it scores better for it.

    One evaluation a founder but the first, one after another: each depends on the one before.
    """

    def __init__(self, context: Context) -> None:
        self._order = Population(context.founders).ranked()
        self.members = self._order[:1]
        self._best = Population(context.founders)[self._order[0]] if self._order else None
        self._next = 1

    @property
    def best(self) -> Individual | None:
        """The soup so far; the best founder, as long as nothing joined it."""
        return self._best

    def ask(self) -> list[Proposal]:
        """See `Strategy.ask`."""
        if self._next >= len(self._order):
            return []
        members: list[tuple[str, Mapping[str, Setting]]] = [(id, {}) for id in [*self.members, self._order[self._next]]]
        return [Proposal(recipe_of(get_method("linear"), members, {"weight": 1.0}), "soup")]

    def tell(self, results: Sequence[Individual]) -> None:
        """See `Strategy.tell`. A soup whose evaluation was stopped early is no improvement."""
        for soup in results:
            if soup.score is not None and soup.complete and self._best and soup.score > (self._best.score or 0.0):
                self.members = [*self.members, self._order[self._next]]
                self._best = soup
        self._next += 1 if results else len(self._order)


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


class ScaledAverage:
    """The uniform average of all founders at each of `SCALES`, in one batch; then nothing.

    That is task arithmetic with one factor as well (Ilharco et al., arXiv 2212.04089): scale s is the factor s over the
    number of founders. Raises `InvalidConfig` for merges that are no points of the span.
    """

    def __init__(self, settings: StrategySettings, merge: MergeSettings, context: Context) -> None:
        require_weights(merge, settings.name)
        self._founders = [founder.id for founder in context.founders]
        self._told = False

    def ask(self) -> list[Proposal]:
        """See `Strategy.ask`."""
        count = 0 if self._told else len(self._founders)
        points = [average(range(count), count, scale) for scale in SCALES if count]
        return [Proposal(point_recipe(point, self._founders), "soup") for point in points]

    def tell(self, results: Sequence[Individual]) -> None:
        """See `Strategy.tell`."""
        self._told = True
