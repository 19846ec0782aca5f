"""Scores as answers hold them: values with their errors, by split and by task, and differences of two."""

from typing import Literal

from service.answers.base import Part

Split = Literal["search", "held_out"]


class Estimate(Part):
    """A number and how sure it is."""

    value: float
    """The number."""
    stderr: float | None
    """Its standard error; null where a task has a single document."""


class TaskScore(Estimate):
    """The score on one task."""

    documents: int
    """How many were scored."""
    digest: str | None = None
    """Of task definition and documents: scores under different digests are of different tasks."""


class Stopped(Part):
    """Why evaluation was stopped early."""

    rival: str
    """Who was ahead."""
    statistic: float | None
    """By how many standard errors; null where there was no error."""
    boundary: float
    """At least so many."""
    look: int
    """After which block."""


class SplitScore(Estimate):
    """The score on one split."""

    complete: bool
    """False for an estimate from some of the documents."""
    documents: int
    """How many were scored, over all tasks."""
    tasks: dict[str, TaskScore]
    """By name."""
    stopped: Stopped | None = None
    """Where it was stopped early."""


class Difference(Part):
    """One score less another, paired by document."""

    value: float | None
    """The difference."""
    stderr: float | None
    """Its standard error; null where a task has a single document."""
    low: float | None
    """Where the bootstrap interval begins."""
    high: float | None
    """Where it ends."""
    level: float | None
    """Confidence of the interval."""
    documents: int
    """On how many."""
