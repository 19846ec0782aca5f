"""What happens in a worker: it opens the founders once, and from then on turns coefficients into results.

Recipes travel, weights never: a payload is a table of coefficients and numbers of documents.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluators.base import Candidate, Evaluator, Task
from evaluators.settings import EvaluateSettings
from evaluators.workers import Failure, WorkerPool, make_pool
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.own_heads import with_own_heads
from kinship.errors import EvaluationFailed, InvalidConfig, KinshipError, WorkersFailed
from merging.offspring.span import Genome
from merging.offspring.weights import materialise
from search.config import RunConfig

Results = dict[str, dict[int, float]]


@dataclass(frozen=True)
class Description:
    """What an evaluator will run, and under which conditions; stands for it where it is not at hand."""

    tasks: Sequence[Task]
    conditions: Mapping[str, str]

    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> Results:
        """Nothing is run here; raises `RuntimeError`."""
        raise RuntimeError("the evaluator is with the workers")


@dataclass(frozen=True)
class Describe:
    """The payload that asks for a `Description`."""


@dataclass(frozen=True)
class Work:
    """The payload that asks for results: of ``documents`` by task.

    genome: bytes of coefficients, of tensors ``names`` on ``columns``, which name models of the worker or keys of
    ``stored``: the files of children outside the span.
    """

    id: str
    identity: str
    genome: bytes
    names: Sequence[str]
    columns: Sequence[str]
    documents: Mapping[str, Sequence[int]]
    stored: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Setup:
    """Makes a `Handle` in a worker; it can be pickled where ``factory`` can.

    models: references by id, the base first, counted from ``root``. factory: makes an evaluator in place of the one
    that ``settings`` ask for.
    """

    models: Mapping[str, str]
    root: Path | None
    settings: EvaluateSettings
    factory: Callable[[], Evaluator] | None = None

    def __call__(self) -> "Handle":
        """Open the models and make the evaluator."""
        opened = [open_checkpoint(path, id=id, root=self.root) for id, path in self.models.items()]
        models = dict(zip(self.models, with_own_heads(opened), strict=True))
        if self.factory is not None:
            return Handle(self.factory(), models)
        from evaluators.make import make_evaluator

        return Handle(make_evaluator(self.settings, next(iter(models.values())), self.root), models)


class Handle:
    """Serves payloads one after another with one evaluator."""

    def __init__(self, evaluator: Evaluator, models: Mapping[str, Checkpoint]) -> None:
        self._evaluator = evaluator
        self._models = dict(models)
        self._stored: set[str] = set()

    def __call__(self, payload: Describe | Work) -> Any:
        """A `Description` or `Results`; raises what making or scoring the weights raises."""
        if isinstance(payload, Describe):
            return Description(list(self._evaluator.tasks), dict(self._evaluator.conditions))
        return self._evaluator.run(self.candidate(payload), payload.documents)

    def candidate(self, work: Work) -> Candidate:
        """The weights that ``work`` speaks of, made when asked for."""
        genome = Genome.from_bytes(work.genome, len(work.names))
        for id in self._stored - work.stored.keys():  # an open file takes up the disk even after it was removed
            self._models[id].close()
        models = [self._models.get(id) or self._open(id, work.stored[id]) for id in work.columns]
        return Candidate(work.id, work.identity, lambda: materialise(genome, work.names, models))

    def _open(self, id: str, file: str) -> Checkpoint:
        self._stored.add(id)
        self._models[id] = open_checkpoint(file, id=id)
        return self._models[id]


Observer = Callable[[str, Mapping[str, Any]], None]
"""Told of events as (name, facts); a result is told only once it is durable. docs/formats.md lists the events."""


def silent(name: str, facts: Mapping[str, Any]) -> None:
    """The observer that does nothing."""


def hire(
    config: RunConfig,
    models: Sequence[Checkpoint],
    root: Path | None,
    evaluator: Evaluator | None,
    factory: Callable[[], Evaluator] | None,
) -> WorkerPool:
    """The workers that ``config`` asks for. ``evaluator``: works in this process, on the open ``models``."""
    if evaluator is None:
        return make_pool(config.workers, Setup(config.references, root, config.evaluate, factory))
    if config.workers.kind != "inline":
        raise InvalidConfig(
            f"An evaluator that is an object of this process cannot work in {config.workers.kind} workers.",
            hint="Give a function that makes it, at the top of a module, as evaluator_factory.",
        )
    handle = Handle(evaluator, {model.id: model for model in models})
    return make_pool(config.workers, lambda: handle)


def describe(pool: WorkerPool) -> Description:
    """Tasks and conditions of the workers' evaluator; raises what is wrong with its settings."""
    try:
        ((_, description),) = pool.run([Describe()])
    except WorkersFailed as error:
        if isinstance(error.__cause__, KinshipError):  # of a setup in this process: its own hint is the better one
            raise error.__cause__ from None
        raise
    if isinstance(description, Failure):
        raise EvaluationFailed(f"The evaluator cannot tell its tasks: {description.message}")
    assert isinstance(description, Description)
    return description
