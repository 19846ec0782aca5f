"""The interface of a strategy, and what it is told of the models it starts from."""

import math
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Literal, Protocol

from kinship.arrays import Float64
from merging.recipe.schema import Recipe

Role = Literal[
    "base",
    "founder",
    "greedy",  # a pair of the best
    "exploration",  # the best with a partner chosen by kinship or complementarity
    "random",  # a partner, pair or point drawn at random
    "pair",  # one of all pairs
    "soup",  # an average
    "scale",  # a point on the line from the base through a model
    "model",  # chosen by a model of the scores: expected improvement, or a sampler
    "recheck",  # the best by the model's own prediction
    "niche",  # of a member of an archive with one that is right where it is wrong
    "control",  # of nobody's proposing: see `search.running.controls`
]


@dataclass(frozen=True, eq=True)
class Proposal:
    """A merge worth trying: ``recipe``, whose model names are ids of individuals, and why it is tried."""

    recipe: Recipe
    role: Role

    @cached_property
    def parents(self) -> tuple[str, ...]:
        """The ids merged, in the recipe's order, each once; the base only where it is itself merged as a model."""
        return tuple(dict.fromkeys(_merged(self.recipe)))


def _merged(recipe: Recipe) -> Iterator[str]:
    for part in recipe.parts:
        for entry in part.merged(recipe.method):
            yield from [entry.model] if isinstance(entry.model, str) else _merged(entry.model)


@dataclass(frozen=True)
class Individual:
    """A base, a founder (both generation 0, no parents) or offspring.

    score: what the search selects on, higher is better; None where evaluation failed. stderr: its standard error.
    complete: False where evaluation was stopped early, so that ``score`` is an estimate; such an individual never ranks
    above a complete one. tasks, errors: the score of each task by name and its standard error, where there is one, for
    several objectives. identity: of its weights.
    """

    id: str
    generation: int
    score: float | None
    parents: tuple[str, ...] = ()
    role: Role = "greedy"
    stderr: float | None = None
    complete: bool = True
    tasks: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    errors: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    identity: str = ""

    @property
    def scored(self) -> bool:
        """Whether it has a score, complete or estimated."""
        return self.score is not None and not math.isnan(self.score)


def standing(score: float | None, stderr: float | None, identity: str | None, id: str) -> tuple[float, float, str, str]:
    """Sorts individuals, best first: by score, of equal ones the surer first, then by weights.

    What somebody is called decides between equal weights alone, so that other names do not make it another search.
    """
    missing = score is None or math.isnan(score)
    return math.inf if missing else -(score or 0.0), math.inf if stderr is None else stderr, identity or "", id


def _place(individual: Individual) -> tuple[bool, tuple[float, float, str, str]]:
    return not individual.complete, standing(individual.score, individual.stderr, individual.identity, individual.id)


class Population:
    """Individuals in the order they came."""

    def __init__(self, individuals: Iterable[Individual] = ()) -> None:
        self._members: dict[str, Individual] = {}
        self._ranked: list[Individual] = []
        self._pairs: set[frozenset[str]] = set()
        for individual in individuals:
            self.add(individual)

    def __getitem__(self, id: str) -> Individual:
        return self._members[id]

    def add(self, individual: Individual) -> None:
        """Add an individual; its parents count as merged from now on."""
        before = self._members.get(individual.id)
        if before is not None and before.scored:
            self._ranked.remove(before)
        self._members[individual.id] = individual
        if individual.scored:
            insort(self._ranked, individual, key=_place)
        if individual.parents:
            self._pairs.add(frozenset(individual.parents))

    def members(self) -> list[Individual]:
        """Everyone, in the order they came."""
        return list(self._members.values())

    def ranked(self) -> list[str]:
        """Ids of all that have a score, best first (see `standing`), those stopped early last."""
        return [member.id for member in self._ranked]

    def by_weights(self, ids: Iterable[str]) -> list[str]:
        """The ids in an order that rests on their weights, not on what they are called."""
        return sorted(ids, key=lambda id: (self._members[id].identity, id))

    def generation(self, number: int) -> list[str]:
        """Ids of a generation's individuals that have a score."""
        return [m.id for m in self._members.values() if m.generation == number and m.scored]

    def merged_pairs(self) -> set[frozenset[str]]:
        """Every set of parents that has been merged, in whatever order."""
        return set(self._pairs)


Closeness = Callable[[str, str], float]
"""How closely two individuals are related: larger is closer, whatever the metric; NaN where there is no value."""


def _no_answers(id: str) -> "Answers":
    raise NotImplementedError(f"nobody kept what {id} answered")


@dataclass(frozen=True)
class Answers:
    """What somebody got for each document of the search, in the same order for everybody.

    values: (documents,), higher is better. weights: (documents,), what a difference in each counts in the score.
    """

    values: Float64
    weights: Float64


@dataclass(frozen=True)
class Context:
    """What a strategy may know beside the scores it is told. Everything is a function of ids and files alone.

    base, founders: scored. names: the tensors' names, for coefficients by layer or module. closeness: kinship of two
    individuals, of any generation. complementarity: the share of the documents that both were scored on on which the
    worse-scoring of the two beats the better; NaN where they share none. gram: (n+1, n+1) inner products of [base,
    task vectors of the founders in order], summed over the whole model. cosine: of the whole task vectors of two
    individuals; NaN where one has none. answers: of an individual that was scored on all documents.
    """

    base: Individual
    founders: tuple[Individual, ...]
    names: tuple[str, ...]
    closeness: Closeness
    complementarity: Closeness
    gram: Callable[[], Float64]
    cosine: Closeness = lambda one, other: math.nan
    answers: Callable[[str], Answers] = field(default=_no_answers)


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
