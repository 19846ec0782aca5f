"""The partner that the best model may get beside the pairs of the top k: from which pool, and who is in it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from search.strategies.base import Population
from search.strategies.settings import StrategySettings

Pool = Literal["previous", "all", "outside"]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Choice:
    """What is left to choose from.

    best: who gets a partner. pool: where partners are from; ``all`` where the run file's pool left nobody. partners:
    their ids, ordered by weights; none where the best has met everybody, so that exploration is skipped.
    """

    best: str
    pool: Pool
    partners: tuple[str, ...]


def new_pairs(population: Population, k: int) -> list[Pair]:
    """Every pair among the k best that was not merged before, the better one first."""
    merged = population.merged_pairs()
    return [pair for pair in combinations(population.ranked()[:k], 2) if frozenset(pair) not in merged]


def choice_of(population: Population, settings: StrategySettings, generation: int) -> Choice | None:
    """Whom the best model may get in this generation of Top-k greedy merging, who is not to meet it anyway.

    The pool is the run file's. Where nobody is left in it, it is everybody: a search that was asked to explore does.
    None where no partner is added.
    """
    if settings.variant == "vanilla" or generation < 2:
        return None
    ranked = population.ranked()
    if not ranked:
        return None
    best = ranked[0]
    met = population.merged_pairs() | {frozenset(pair) for pair in new_pairs(population, settings.k)}

    def left(pool: Collection[str]) -> tuple[str, ...]:
        return tuple(id for id in population.by_weights(pool) if id != best and frozenset((best, id)) not in met)

    narrow = left(_pool(settings.partner_pool, population, ranked, settings.k, generation))
    return Choice(best, settings.partner_pool, narrow) if narrow else Choice(best, "all", left(ranked))


def _pool(pool: Pool, population: Population, ranked: Sequence[str], k: int, generation: int) -> Collection[str]:
    match pool:
        case "previous":
            return population.generation(generation - 2)
        case "outside":
            return ranked[k:]
        case "all":
            return ranked
