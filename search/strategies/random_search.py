"""Random search: points of a space drawn evenly, the baseline of every coefficient search."""

import random
from collections.abc import Sequence

from search.strategies.base import Context, Individual, Proposal
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.space import Space

UNLIMITED = 40  # evaluations, where the run sets no budget


class RandomSearch:
    """Batches of points, every number drawn evenly between its bounds."""

    def __init__(
        self, settings: StrategySettings, merge: MergeSettings, context: Context, seed: int, budget: int | None
    ) -> None:
        self._space = Space.of(settings, merge, context)
        self._batch = settings.batch
        self._seed = seed
        self._left = UNLIMITED if budget is None else None
        self._told = 0

    def ask(self) -> list[Proposal]:
        """See `Strategy.ask`."""
        count = self._batch if self._left is None else min(self._batch, self._left)
        return [self._draw(self._told + number) for number in range(count)]

    def tell(self, results: Sequence[Individual]) -> None:
        """See `Strategy.tell`."""
        self._told += self._batch
        if self._left is not None:
            self._left = max(self._left - self._batch, 0) if results else 0

    def _draw(self, number: int) -> Proposal:
        draw = random.Random(f"{self._seed}:{number}")
        values = {name: draw.uniform(low, high) for name, (low, high) in self._space.bounds.items()}
        return Proposal(self._space.recipe(values), "random")
