"""The interface of a strategy, and what it is told of the models it starts from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from kinship.arrays import Float64
from search.population import Individual, Proposal

Closeness = Callable[[str, str], float]
"""How closely two individuals are related: larger is closer, whatever the metric; NaN where there is no value."""


@dataclass(frozen=True)
class Context:
    """What a strategy may know beside the scores it is told. Everything is a function of ids and files alone.

    base, founders: scored. names: the tensors' names, for coefficients by layer or module. closeness: kinship of two
    individuals, of any generation. complementarity: the share of the documents that both were scored on on which the
    worse-scoring of the two beats the better; NaN where they share none. gram: (n+1, n+1) inner products of [base,
    task vectors of the founders in order], summed over the whole model.
    """

    base: Individual
    founders: tuple[Individual, ...]
    names: tuple[str, ...]
    closeness: Closeness
    complementarity: Closeness
    gram: Callable[[], Float64]


class Strategy(Protocol):
    """Proposes merges batch by batch.

    A pure state machine: no files, clock or global randomness, so that telling it the same results in the same order
    brings it to the same state. ``ask`` must not change the state; the coordinator calls ``ask``, ``tell``, ``ask`` ...
    The size of a batch follows from settings and state, never from the number of workers.
    """

    def ask(self) -> list[Proposal]:
        """The next batch; empty when the search is over."""
        ...

    def tell(self, results: Sequence[Individual]) -> None:
        """Take the results of the batch last asked for, in the order proposed; fewer when a budget cut it short."""
        ...


@runtime_checkable
class Recommends(Protocol):
    """A strategy with an opinion of its own on who is best: by a model of all scores, not by the highest of them.

    As pure as `Strategy`. The opinion is recorded beside the best score and decides nothing.
    """

    def recommend(self) -> str | None:
        """The id of the offspring expected to be best, by what was told so far; None where there is no opinion."""
        ...
