"""The pool that the settings ask for."""

from evaluators.workers.base import Setup, WorkerPool
from evaluators.workers.inline import InlinePool
from evaluators.workers.pool import RemotePool
from evaluators.workers.settings import WorkerSettings


def make_pool(settings: WorkerSettings, setup: Setup) -> WorkerPool:
    """Start workers that each run ``setup`` once; use it in a ``with`` block, so that they end with it.

    Returns before they are ready. Raises `InvalidConfig` for a setup that cannot be pickled, `WorkersFailed` where no
    worker can be started.
    """
    if settings.kind == "local":
        from evaluators.workers.local import LocalLauncher

        return RemotePool(settings, setup, LocalLauncher(settings))
    if settings.kind == "ray":
        from evaluators.workers.ray import RayLauncher

        return RemotePool(settings, setup, RayLauncher(settings))
    return InlinePool(settings, setup)
