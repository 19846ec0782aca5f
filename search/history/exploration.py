"""Whom the best model could have been given as a partner, generation by generation: did a control have a choice?"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from search.config import RunConfig
from search.ledger.records import Record
from search.strategies.base import Population
from search.strategies.make import resolved_name
from search.strategies.partners import choice_of
from search.strategies.recipes import BASE

ADDED = {"exploration", "random"}  # roles of children of the added partner


def offered(records: Sequence[Record], config: RunConfig) -> dict[str, Any]:
    """``best``, ``pool`` and how many ``partners`` there are to choose from in the generation after ``records`` (see
    `search.strategies.partners.Choice`); nothing where that adds no partner.
    """
    if not _adds_partners(config):
        return {}
    population = Population(record.individual() for record in records if record.id != BASE)
    return _offer(population, config, 1 + max((record.generation for record in records), default=0))


def _adds_partners(config: RunConfig) -> bool:
    return resolved_name(config.strategy, config.merge) == "topk" and config.strategy.variant != "vanilla"


def _offer(population: Population, config: RunConfig, generation: int) -> dict[str, Any]:
    choice = choice_of(population, config.strategy, generation)
    return {} if choice is None else {"best": choice.best, "pool": choice.pool, "partners": len(choice.partners)}


def explorations(records: Sequence[Record], config: RunConfig) -> list[dict[str, Any]]:
    """One row a generation that might have added a partner: its number, what `offered` says, and who was ``chosen``,
    or None.
    """
    return list(_explorations(records, config)) if _adds_partners(config) else []


def _explorations(records: Sequence[Record], config: RunConfig) -> Iterator[dict[str, Any]]:
    earlier = Population()
    for generation, group in groupby(sorted(records, key=_generation), key=_generation):
        members = list(group)
        asked = any(member.role in {"greedy", *ADDED} for member in members)
        there = _offer(earlier, config, generation) if asked else {}
        if there:
            added = next((member.parents for member in members if member.role in ADDED), ())
            chosen = next((id for id in added if id != there["best"]), None)
            yield {"generation": generation, **there, "chosen": chosen}
        for member in members:
            if member.id != BASE:
                earlier.add(member.individual())


def _generation(record: Record) -> int:
    return record.generation


def told(found: Sequence[Mapping[str, Any]], asked: str) -> str:
    """The rows of `explorations` in words; ``asked``: the run file's pool. Empty where there are none.

    >>> rows = [
    ...     {"generation": 2, "pool": "all", "partners": 5, "chosen": "a"},
    ...     {"generation": 3, "pool": "previous", "partners": 1, "chosen": "b"},
    ...     {"generation": 4, "pool": "all", "partners": 0, "chosen": None},
    ... ]
    >>> print(told(rows, "previous"))
    Partners to choose from, by generation: 2: 5 of all (nobody left in 'previous'); 3: 1, no choice; 4: none, skipped.
    >>> print(told(rows[1:], "previous"))
    Partners to choose from, by generation: 3: 1, no choice; 4: none, skipped. Other variants had chosen the same.
    """
    if not found:
        return ""
    parts = "; ".join(f"{row['generation']}: {_counted(row, asked)}" for row in found)
    alone = "" if any(row["partners"] > 1 for row in found) else " Other variants had chosen the same."
    return f"Partners to choose from, by generation: {parts}.{alone}"


def _counted(row: Mapping[str, Any], asked: str) -> str:
    if not row["partners"]:
        return "none, skipped"
    wider = f" of all (nobody left in {asked!r})" if row["pool"] != asked else ""
    return f"{row['partners']}{wider}{', no choice' if row['partners'] == 1 else ''}"
