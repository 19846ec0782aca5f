"""How far a search has come, and when it stops, beside its strategy having nothing more to propose."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kinship.measures.matrix import KinshipMatrix
from search.config import StopSettings
from search.ledger.records import Record, Standings


@dataclass(frozen=True)
class Spent:
    """What a run has used up before ``generation``.

    evaluations: offspring, however they ended. documents: results that scores rest on, of founders too, on the search
    split. seconds: work of all sessions; None where the generation is on record, so that the clock has no say.
    """

    generation: int
    evaluations: int
    documents: int
    seconds: float | None = None


class Progress:
    """What was done by the generations that are complete, base and founders first, and who leads after them.

    generation: the number of the next. told: everybody so far, in order.
    """

    def __init__(self, baselines: Sequence[Record]) -> None:
        self.generation = 1
        self.told = list(baselines)
        self.evaluations = 0
        self._documents = sum(record.documents for record in baselines)
        self._standings = Standings(baselines)

    def add(self, offspring: Sequence[Record]) -> None:
        """A generation is complete."""
        self.generation += 1
        self.told += offspring
        self.evaluations += len(offspring)
        self._documents += sum(record.documents for record in offspring)
        for record in offspring:
            self._standings.add(record)

    def top(self, count: int) -> list[str]:
        """Ids of the best, best first."""
        return self._standings.top(count)

    def spent(self, seconds: float | None) -> Spent:
        """What was used up before the next generation."""
        return Spent(self.generation, self.evaluations, self._documents, seconds)


def reason_to_stop(stop: StopSettings, spent: Spent, top_kinship: Callable[[], KinshipMatrix]) -> str | None:
    """Why not to start the generation, or None. ``top_kinship``: kinship among the best, asked for only if need be."""
    if stop.most_generations is not None and spent.generation > stop.most_generations:
        return f"reached {stop.most_generations} generations"
    if stop.evaluations is not None and spent.evaluations >= stop.evaluations:
        return f"reached {stop.evaluations} evaluations"
    if stop.documents is not None and spent.documents >= stop.documents:
        return f"reached {stop.documents} documents"
    if stop.hours is not None and spent.seconds is not None and spent.seconds >= 3600 * stop.hours:
        return f"reached {stop.hours:g} hours"
    if stop.kinship_above is not None:
        kinship = top_kinship()
        mean, spec = kinship.mean(), kinship.spec
        if not math.isnan(mean) and spec.closeness(mean) > spec.closeness(stop.kinship_above):
            return f"mean kinship among the top {len(kinship.ids)} is {mean:.3f}, past {stop.kinship_above}"
    return None
