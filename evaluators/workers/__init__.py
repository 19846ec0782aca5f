"""Workers that evaluate: in this process, in others of this machine, or on a Ray cluster.

The public names are imported on first use: a worker that starts needs none of them.
"""

from typing import TYPE_CHECKING

from kinship.faces import lazy_face

if TYPE_CHECKING:
    from evaluators.workers.base import Failure as Failure
    from evaluators.workers.base import Handle as Handle
    from evaluators.workers.base import Setup as Setup
    from evaluators.workers.base import WorkerPool as WorkerPool
    from evaluators.workers.make import make_pool as make_pool
    from evaluators.workers.settings import WorkerSettings as WorkerSettings

_HOMES = {
    "Failure": "evaluators.workers.base",
    "Handle": "evaluators.workers.base",
    "Setup": "evaluators.workers.base",
    "WorkerPool": "evaluators.workers.base",
    "WorkerSettings": "evaluators.workers.settings",
    "make_pool": "evaluators.workers.make",
}

__all__ = sorted(_HOMES)


__getattr__ = lazy_face(__name__, _HOMES)
