"""Who is there: individuals with their descent and scores, as the strategies see them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Role = Literal["base", "founder", "greedy", "exploration", "random"]


@dataclass(frozen=True)
class Mating:
    """A proposal to merge two individuals; the better-scoring parent comes first."""

    parents: tuple[str, str]
    role: Role


@dataclass(frozen=True)
class Individual:
    """A founder (generation 0, no parents) or offspring. ``score`` is None where evaluation failed."""

    id: str
    generation: int
    score: float | None
    parents: tuple[str, ...] = ()


class Population:
    """Individuals in the order they came."""

    def __init__(self, individuals: Iterable[Individual] = ()) -> None:
        self._members = {individual.id: individual for individual in individuals}

    def add(self, individual: Individual) -> None:
        """Add an individual; its parents count as merged from now on."""
        self._members[individual.id] = individual

    def ranked(self) -> list[str]:
        """Ids of all that have a score, best first; equal scores by id."""
        scored = [member for member in self._members.values() if member.score is not None]
        return [member.id for member in sorted(scored, key=lambda member: (-(member.score or 0.0), member.id))]

    def generation(self, number: int) -> list[str]:
        """Ids of a generation's individuals that have a score."""
        return [m.id for m in self._members.values() if m.generation == number and m.score is not None]

    def merged_pairs(self) -> set[frozenset[str]]:
        """Every pair that has been merged, in either order."""
        return {frozenset(member.parents) for member in self._members.values() if member.parents}
