"""Workers as actors on a Ray cluster, wherever it has room."""

import logging
import os
from collections.abc import Collection, Sequence
from typing import Any

from evaluators.workers.pool import WorkerLost
from evaluators.workers.serving import Report, Worker
from evaluators.workers.settings import WorkerSettings, thread_environment
from kinship.errors import InvalidConfig, WorkersFailed


class RayLauncher:
    """Actors with CPUs, GPUs and a process each, on an existing cluster or one of this machine's own.

    Ray's own restarts are off (``max_restarts=0``): a worker that hangs has to be replaced by the pool anyway, and one
    that died or whose node went away is replaced the same way, on any node with room.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._ray = _import_ray()
        self._mine = not self._ray.is_initialized()
        if self._mine:
            _connect(self._ray, settings)
        resources = self._ray.cluster_resources()
        self._threads = settings.threads or 1
        self._gpus = settings.gpus if settings.gpus is not None else float(resources.get("GPU", 0) >= 1)
        self.size = settings.count or max(1, int(resources.get("GPU", 0) / self._gpus) if self._gpus else 1)
        self._require_room(resources)
        self._actor = self._ray.remote(num_cpus=self._threads, num_gpus=self._gpus, max_restarts=0, max_task_retries=0)(
            RayActor
        )

    def _require_room(self, resources: dict[str, float]) -> None:
        for kind, each in (("CPU", self._threads), ("GPU", self._gpus)):
            if self.size * each > resources.get(kind, 0):
                self.close()
                raise WorkersFailed(
                    f"The workers need {self.size * each:g} {kind}s in all; the Ray cluster has "
                    f"{resources.get(kind, 0):g}.",
                    hint="Ask for fewer workers, or for fewer threads or GPUs each.",
                )

    def launch(self, setup: bytes, place: int) -> "RayWorker":
        """Ask for an actor; it starts once the cluster has room for it."""
        return RayWorker(self._ray, self._actor.remote(thread_environment(self._threads)), setup)

    def wait(self, workers: Sequence["RayWorker"], timeout: float | None) -> Collection["RayWorker"]:
        """See `Launcher.wait`."""
        awaited = {worker.pending[0]: worker for worker in workers if worker.pending}
        done, _ = self._ray.wait(list(awaited), num_returns=1, timeout=timeout)
        return [awaited[reference] for reference in done]

    def close(self) -> None:
        """Leave the cluster, if it was joined (and end it, if it was started) here."""
        if self._mine:
            self._mine = False
            self._ray.shutdown()


class RayWorker:
    """The handle of one actor, and the reports that it owes."""

    def __init__(self, ray: Any, actor: Any, setup: bytes) -> None:
        self._ray = ray
        self._actor = actor
        self.pending = [actor.start.remote(), actor.prepare.remote(setup)]

    def send(self, payload: bytes) -> None:
        """See `RemoteWorker.send`. Whether the actor still lives, its report tells: if not, the try counts."""
        self.pending.append(self._actor.answer.remote(payload))

    def receive(self) -> Report:
        """See `RemoteWorker.receive`."""
        try:
            report: Report = self._ray.get(self.pending.pop(0))
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(f"its worker was lost: Ray says {type(error).__name__}", str(error)) from error
        return report

    def inspect(self) -> str:
        """Nothing: what an actor prints is in the logs of its node."""
        return ""

    def kill(self) -> None:
        """See `RemoteWorker.kill`."""
        self._ray.kill(self._actor)


class RayActor:
    """The far side, in a process that Ray has started."""

    def __init__(self, environment: dict[str, str]) -> None:
        os.environ.update(environment)  # before anything numerical is imported
        self._worker = Worker()

    def start(self) -> Report:
        """Say that there was room for it."""
        return Report("started")

    def prepare(self, setup: bytes) -> Report:
        """See `Worker.prepare`."""
        return self._worker.prepare(setup)

    def answer(self, payload: bytes) -> Report:
        """See `Worker.answer`."""
        return self._worker.answer(payload)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise InvalidConfig(
            f"Workers of the kind ray need Ray: {error}", hint='Install it: pip install "model-kinship[ray]"'
        ) from error
    return ray


def _connect(ray: Any, settings: WorkerSettings) -> None:
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    # Ray tells of each actor that dies, on stdout, which may be a stream of JSON; there is no public switch for that.
    if hasattr(ray._private.worker, "_worker_logs_enabled"):
        ray._private.worker._worker_logs_enabled = False
    alone = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **alone)
    except Exception as error:  # as Ray raises for a node that is slow to start
        begun = "start on this machine" if alone else f"be reached at {address}"
        raise WorkersFailed(
            f"Ray cannot {begun}: {error}",
            hint="Start a cluster with ray start --head, and give its address.",
        ) from error
