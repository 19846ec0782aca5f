"""Who still matters: of whom the held-out split and the report speak, and whose weights may be asked for again."""

from collections.abc import Iterable, Sequence

from search.records import Record, Standings, best_offspring, best_so_far, front
from search.strategies.settings import StrategySettings

LATEST = 2  # generations of which strategies choose partners: see `partner_pool`


def compared(records: Sequence[Record], settings: StrategySettings) -> list[str]:
    """Ids of those that led the run after a generation, the best offspring and the parents of all of these, each once;
    where every task is an objective, the Pareto front as well.
    """
    by_id = {record.id: record for record in records}
    best = best_offspring(records)
    leaders = [*best_so_far(records), *([best.id] if best else [])]
    if settings.objectives == "tasks":
        leaders += front(records)
    return list(dict.fromkeys([*leaders, *(parent for id in leaders for parent in by_id[id].parents)]))


def living(records: Sequence[Record], settings: StrategySettings) -> Iterable[str]:
    """Ids of those that may yet be parents or be scored again, as far as is known after the latest generation.

    The top k, the latest generations and those `compared`; everybody, where the strategy may choose anybody.
    """
    if settings.variant != "vanilla" and settings.partner_pool != "previous":
        return [record.id for record in records]
    latest = max(record.generation for record in records)
    recent = [record.id for record in records if record.generation > latest - LATEST]
    return dict.fromkeys([*Standings(records).top(settings.k), *recent, *compared(records, settings)])
