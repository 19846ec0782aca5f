"""Jobs: work that a service does apart from itself."""

from typing import Literal

from service.answers.base import Answer, Part, named

JobKind = Literal["evolve", "plan", "matrix", "advise", "tree", "merge", "score", "compare"]
JobState = Literal["queued", "running", "pausing", "cancelling", "paused", "cancelled", "done", "failed", "lost"]


class JobProgress(Part):
    """How far a job is."""

    stage: str
    """What it is at."""
    done: int
    """So much of it."""
    total: int
    """All of it; 0 where that is not known."""
    unit: str
    """Of both: ``B`` for bytes, ``documents``."""


class Job(Answer):
    """One job."""

    schema_: Literal["kinship.job/2"] = named("kinship.job/2")
    id: int
    """Its number."""
    kind: JobKind
    """Which command it runs."""
    title: str
    """What it is about, in words."""
    state: JobState
    """``lost``: its process died; it will be started again."""
    run: str | None
    """The folder that it works on: of a search, or a comparison of merge methods."""
    arguments: list[str]
    """Of the command; ``{job}`` is its folder, ``{work}`` the folder of this attempt."""
    device: str
    """What it asks for: ``cpu``, ``cuda``, or ``light`` for what takes little."""
    slot: str | None
    """What it runs on, while it does."""
    host: str
    """Where it was asked for and is run."""
    starts: int
    """How often its process was started."""
    created: str
    """UTC, ISO 8601."""
    started: str | None
    """The latest time."""
    ended: str | None
    """When it was done, failed, paused or cancelled."""
    error: str | None
    """Why it failed."""
    hint: str | None
    """What to do about that."""
    progress: JobProgress | None
    """Null where it does not tell, or has ended."""


class Jobs(Answer):
    """The jobs of a service."""

    schema_: Literal["kinship.jobs/3"] = named("kinship.jobs/3")
    jobs: list[Job]
    """Those that wait in their order, then the others, the latest first."""
    next: int | None
    """The cursor of the next page, of earlier jobs; null on the last one."""


class JobLog(Answer):
    """A part of a job's log."""

    schema_: Literal["kinship.job-log/1"] = named("kinship.job-log/1")
    text: str
    """What it wrote; bytes that are no UTF-8 are shown as such."""
    next: int
    """The byte to go on from."""
    over: bool
    """Whether nothing more will come."""
