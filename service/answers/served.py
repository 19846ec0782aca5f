"""What a service tells of itself and its runs, beside what the command line tells of them too."""

from typing import Literal

from pydantic import JsonValue

from service.answers.base import Answer, Part, named
from service.answers.export import Individual
from service.answers.runs import RunSummary

RunState = Literal["new", "queued", "running", "pausing", "paused", "finished", "failed", "interrupted"]


class Health(Answer):
    """A server that works."""

    schema_: Literal["kinship.health/1"] = named("kinship.health/1")
    version: str
    """Of model-kinship."""
    folder: str
    """The workspace."""
    database: str
    """Where jobs are kept: the file, or the URL without its password."""


class ServedRun(Answer):
    """A run of the workspace."""

    schema_: Literal["kinship.served-run/1"] = named("kinship.served-run/1")
    id: str
    """In addresses."""
    state: RunState
    """``interrupted``: neither finished nor paused, and nobody works on it. ``new``: nothing is on record yet."""
    job: int | None
    """The latest that works, or worked, on it."""
    summary: RunSummary | None
    """As `kinship runs list` tells it; null while nothing is on record."""
    evaluations: int | None
    """Budget of offspring, if there is one."""
    seconds_left: float | None
    """Guessed from the pace so far; null where there is no budget, or nobody works."""
    error: str | None
    """Why the ledger cannot be read, or its latest job failed."""


class ServedRuns(Answer):
    """The runs of the workspace."""

    schema_: Literal["kinship.served-runs/1"] = named("kinship.served-runs/1")
    runs: list[ServedRun]
    """By id."""


class ServedComparison(Answer):
    """A comparison of merge methods in the workspace."""

    schema_: Literal["kinship.served-comparison/1"] = named("kinship.served-comparison/1")
    id: str
    """In addresses."""
    state: RunState
    """As of a run."""
    job: int | None
    """The latest that works, or worked, on it."""
    arms: int | None
    """How many are done; null where its file is damaged."""
    total: int | None
    """How many there are to do, while a job works on it."""
    has_result: bool
    """Whether it came to its end once."""
    error: str | None
    """Why its file cannot be read, or its latest job failed."""


class ServedComparisons(Answer):
    """The comparisons of the workspace."""

    schema_: Literal["kinship.served-comparisons/1"] = named("kinship.served-comparisons/1")
    comparisons: list[ServedComparison]
    """By id."""


class IndividualPage(Answer):
    """Some of a run's individuals."""

    schema_: Literal["kinship.individuals/1"] = named("kinship.individuals/1")
    individuals: list[Individual]
    """In the order asked for."""
    total: int
    """How many the filters let through."""
    next: str | None
    """The cursor of the next page; null on the last one."""


class RunEvent(Answer):
    """A line of a run's diary."""

    schema_: Literal["kinship.run-event/1"] = named("kinship.run-event/1")
    id: int
    """Rising within a run; of the event stream, the ``Last-Event-ID``."""
    time: str
    """UTC, ISO 8601."""
    seconds: float
    """Of work until then, all sessions together."""
    name: str
    """Such as ``started``, ``added``, ``scored``, ``failed``, ``generation``, ``paused``, ``extended`` or ``ended``."""
    facts: dict[str, JsonValue]
    """Of ``scored`` and ``failed`` the individual and its score or error; else as in the diary."""


class RunEvents(Answer):
    """Some of a run's diary."""

    schema_: Literal["kinship.run-events/1"] = named("kinship.run-events/1")
    events: list[RunEvent]
    """In order."""
    last: int
    """Ask for what came after it; as asked where there is nothing new."""


class Artefact(Part):
    """A file of a run or a job."""

    path: str
    """In its folder."""
    bytes: int
    """Its size."""
    type: str
    """Its media type."""


class Artefacts(Answer):
    """The files of a run or a job."""

    schema_: Literal["kinship.artefacts/1"] = named("kinship.artefacts/1")
    files: list[Artefact]
    """By path."""


class ServedModel(Part):
    """A model of the workspace, or a registered reference."""

    reference: str
    """What to name it by."""
    kind: Literal["folder", "registered"]
    """How it comes to be known."""
    model_type: str | None
    """As its config has it."""
    bytes: int | None
    """Of its weights on this disk."""


class ServedModels(Answer):
    """The models of the workspace."""

    schema_: Literal["kinship.models/1"] = named("kinship.models/1")
    models: list[ServedModel]
    """By reference."""


class ModelTensor(Part):
    """A tensor, as its header has it."""

    name: str
    """In the files."""
    dtype: str
    """As stored."""
    shape: list[int]
    """Of its dimensions."""


class ModelFacts(Answer):
    """What headers and small files tell of a model; no weights are read, or downloaded."""

    schema_: Literal["kinship.model/1"] = named("kinship.model/1")
    reference: str
    """As given."""
    model_type: str | None
    """As its config has it."""
    parameters: int
    """How many."""
    bytes: int
    """Of its tensors."""
    dtypes: list[str]
    """Of its tensors."""
    identity: str | None
    """Of its weights; null unless it was asked for."""
    frame: dict[str, JsonValue]
    """Tokenizer, chat template, generation config and special tokens, by what people call them; long ones by a hash."""
    tensors: list[ModelTensor]
    """In the order of their names."""
