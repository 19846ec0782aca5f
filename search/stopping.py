"""When a search stops, beside its strategy having nothing more to propose."""

import math
from collections.abc import Sequence

from kinship.matrix import KinshipMatrix
from search.config import StopSettings


def reason_to_stop(
    stop: StopSettings, generation: int, evaluations: int, top: Sequence[str], kinship: KinshipMatrix
) -> str | None:
    """Why not to start ``generation``, or None.

    ``evaluations``: offspring scored so far. ``kinship``: of all individuals, from which that of ``top`` is taken.
    """
    if generation > stop.generations:
        return f"reached {stop.generations} generations"
    if stop.evaluations is not None and evaluations >= stop.evaluations:
        return f"reached {stop.evaluations} evaluations"
    if stop.kinship_above is not None:
        mean, spec = kinship.mean(top), kinship.spec
        if not math.isnan(mean) and spec.closeness(mean) > spec.closeness(stop.kinship_above):
            return f"mean kinship among the top {len(top)} is {mean:.3f}, past {stop.kinship_above}"
    return None
