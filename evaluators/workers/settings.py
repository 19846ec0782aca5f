"""Who does the work: the ``workers`` part of a run file."""

from typing import Literal, Self

from pydantic import Field, model_validator

from kinship.threads import worker_count
from kinship.validation import Strict

MOST = 4096  # workers, and threads of each: more is a slip of the pen that would take the machine down


class WorkerSettings(Strict):
    """Workers, and what is done about those that fail. Results depend on none of it."""

    kind: Literal["inline", "local", "ray"] = Field(
        "inline", description="inline: in this process; local: processes of this machine; ray: on a Ray cluster"
    )
    count: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description="how many workers; default: one for each of the devices (ray: GPUs of the cluster), else 1",
    )
    devices: tuple[str | int, ...] = Field(
        default_factory=tuple,
        description="GPUs that local workers take turns at, as CUDA_VISIBLE_DEVICES would name them",
    )
    threads: int | None = Field(
        None, ge=1, le=MOST, description="CPU threads of each worker; default: the cores shared out evenly (ray: 1)"
    )
    gpus: float | None = Field(
        None, ge=0, description="GPUs, or the share of one, for each Ray worker; default: 1 where the cluster has any"
    )
    address: str | None = Field(
        None, description="of a running Ray cluster; default: RAY_ADDRESS, else Ray is started on this machine"
    )
    hang_seconds: float | None = Field(
        14400, gt=0, description="an evaluation that takes longer is given up and its worker replaced; null: never"
    )
    setup_seconds: float | None = Field(3600, gt=0, description="the same for opening models in a new worker")
    attempts: int = Field(3, ge=1, description="how often an evaluation is tried whose worker dies or hangs")
    retry_raised: bool = Field(False, description="try again as well where an evaluation ends with an error")

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        foreign = {
            "inline": {"count", "devices", "threads", "gpus", "address"},
            "local": {"gpus", "address"},
            "ray": {"devices"},
        }
        for name in sorted(foreign[self.kind]):
            if getattr(self, name) not in (None, ()) and (self.kind, name, self.count) != ("inline", "count", 1):
                raise ValueError(f"{name} means nothing to workers of the kind {self.kind}: leave it out")
        return self

    def local_count(self) -> int:
        """How many local workers that is."""
        return self.count or len(self.devices) or 1

    def local_threads(self) -> int:
        """How many threads each local worker has.

        >>> WorkerSettings(kind="local", count=3, threads=2).local_threads()
        2
        """
        return self.threads or max(1, worker_count() // self.local_count())


def thread_environment(threads: int) -> dict[str, str]:
    """The variables that hold a process to ``threads`` threads, if set before it imports anything numerical."""
    names = (
        "KINSHIP_THREADS",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "RAYON_NUM_THREADS",  # of the tokenizers
    )
    return dict.fromkeys(names, str(threads))
