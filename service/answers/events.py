"""What is told of a search while it goes on, one object at a time: after it is in the ledger, never before."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import TypeAdapter

from service.answers.base import Answer, Part, named
from service.answers.scores import Split, Stopped, TaskScore


class Leader(Part):
    """The best individual so far."""

    individual: str
    """Its id."""
    value: float | None
    """Its score on the search split."""
    stderr: float | None
    """The standard error of that."""


class _Event(Answer):
    schema_: Literal["kinship.event/2"] = named("kinship.event/2")
    event: str


class Started(_Event):
    """A session begins."""

    event: Literal["started"] = "started"
    workers: str
    """Their kind."""
    count: int
    """How many workers."""
    device: str
    """Of the workers."""
    baselines: int
    """Base and founders."""
    evaluations: int | None
    """Budget of offspring, if there is one."""
    scored: int
    """Individuals that have an answer already."""
    best: Leader | None
    """Of those."""


class Phase(_Event):
    """What is done now."""

    event: Literal["phase"] = "phase"
    phase: Literal["reading", "merging", "scoring", "writing"]
    """What."""
    individual: str | None = None
    """Who is merged."""
    split: Split | None = None
    """What is scored on."""
    individuals: list[str] | None = None
    """Who is handed to workers."""
    documents: int | None = None
    """How many are handed to workers."""


class Generation(_Event):
    """A generation is proposed."""

    event: Literal["generation"] = "generation"
    generation: int
    """Its number; the first is 1."""
    offspring: int
    """How many."""
    best: str | None = None
    """Whom a partner may be added to, where the strategy adds one."""
    pool: str | None = None
    """Where partners come from."""
    partners: int | None = None
    """How many there are to choose from."""


class Results(_Event):
    """More documents of an individual that is not done."""

    event: Literal["results"] = "results"
    individual: str
    """Its id."""
    split: Split
    """Which the documents are of."""
    documents: int
    """How many so far."""


class IndividualScored(_Event):
    """An individual has a score."""

    event: Literal["scored"] = "scored"
    individual: str
    """Its id."""
    split: Split
    """On which."""
    value: float
    """Of the run's aggregate."""
    stderr: float | None
    """The standard error of that."""
    complete: bool
    """False for an estimate from some of the documents."""
    documents: int
    """How many were scored, over all tasks."""
    tasks: dict[str, TaskScore]
    """By name."""
    stopped: Stopped | None = None
    """Where it was stopped early."""
    twin: str | None = None
    """Where it doubles an earlier individual: whose weights it has."""


class IndividualFailed(_Event):
    """An individual could not be merged or scored."""

    event: Literal["failed"] = "failed"
    individual: str
    """Its id."""
    split: str
    """``search``, ``held_out`` or ``merging``."""
    kind: str
    """``raised``, ``hung`` or ``lost``."""
    attempts: int
    """How many were made."""
    error: str
    """Why."""


class SearchStopped(_Event):
    """The search is over."""

    event: Literal["stopped"] = "stopped"
    reason: str
    """Why."""


class Finished(_Event):
    """Everything is written."""

    event: Literal["finished"] = "finished"
    report: str
    """Path of the page."""
    verdict: str
    """Whether the best offspring is better than the best founder."""


Event = Started | Phase | Generation | Results | IndividualScored | IndividualFailed | SearchStopped | Finished

EVENTS: Mapping[str, type[Event]] = {
    "started": Started,
    "phase": Phase,
    "generation": Generation,
    "results": Results,
    "scored": IndividualScored,
    "failed": IndividualFailed,
    "stopped": SearchStopped,
    "finished": Finished,
}


def event_of(name: str, facts: Mapping[str, Any]) -> Event:
    """The answer that tells what an `Observer` is told."""
    return EVENTS[name].model_validate({"event": name, **facts})


def read_event(line: str) -> Event:
    """One line of ``kinship evolve --json``. Raises `pydantic.ValidationError` for what is none."""
    adapter: TypeAdapter[Event] = TypeAdapter(Event)
    return adapter.validate_json(line)
