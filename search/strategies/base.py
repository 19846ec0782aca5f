"""The interface of a strategy."""

from collections.abc import Callable, Sequence
from typing import Protocol

from search.population import Individual, Mating

Closeness = Callable[[str, str], float]
"""How closely two individuals are related: larger is closer, whatever the metric; NaN where there is no value."""


class Strategy(Protocol):
    """Proposes matings generation by generation.

    A pure state machine: no files, clock or global randomness, so that telling it the same results in the same order
    brings it to the same state. ``ask`` must not change the state; the coordinator calls ``ask``, ``tell``, ``ask`` ...
    """

    def ask(self) -> list[Mating]:
        """The next generation's matings; empty when the search is over."""
        ...

    def tell(self, offspring: Sequence[Individual]) -> None:
        """Take the results of the matings last asked for, in that order; fewer when a budget cut them short."""
        ...
