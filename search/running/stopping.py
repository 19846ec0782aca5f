"""When a search stops, beside its strategy having nothing more to propose, and what is recorded of its end."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from kinship.measures.matrix import KinshipMatrix
from search.config import StopSettings


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
