"""What happens in a worker: it opens the founders once, and from then on turns coefficients into results.

Recipes travel, weights never: a payload is a table of coefficients and numbers of documents.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from evaluators.base import Candidate, Documents, Evaluator, Task
from evaluators.workers import Failure, WorkerPool, make_pool
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import EvaluationFailed, InvalidConfig, KinshipError, WorkersFailed
from merging.offspring.span import Genome, Span
from merging.offspring.weights import materialise
from search.config import RunConfig
from search.running.founders import open_founders


@dataclass(frozen=True)
class Description:
    """What an evaluator will run, and under which conditions; stands for it where it is not at hand."""

    tasks: Sequence[Task]
    conditions: Mapping[str, str]

    def run(self, candidate: Candidate, documents: Documents) -> dict[str, dict[int, float]]:
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
    documents: Documents
    stored: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, id: str, identity: str, genome: Genome, span: Span, documents: Documents, stored: Mapping[str, str]
    ) -> Self:
        """To score a ``genome`` over ``span``: of its columns only those that are used travel, and the base's, from
        which buffers of integers are copied. stored: the files of all children outside the founders' span, by id.
        """
        used = [0, *(np.flatnonzero(genome.coefficients[:, 1:].any(axis=0)) + 1).tolist()]
        columns = [span.ids[index] for index in used]
        files = {id: stored[id] for id in columns if id in stored}
        return cls(id, identity, Genome(genome.coefficients[:, used]).to_bytes(), span.names, columns, documents, files)


@dataclass(frozen=True)
class Setup:
    """Makes a `Handle` in a worker; it can be pickled where ``factory`` can.

    Paths in ``config`` count from ``root``. factory: makes an evaluator in place of the one that it asks for.
    """

    config: RunConfig
    root: Path | None
    factory: Callable[[], Evaluator] | None = None

    def __call__(self) -> "Handle":
        """Open the models and make the evaluator."""
        founders = open_founders(self.config, self.root)
        models = {model.id: model for model in founders.models}
        if self.factory is not None:
            return Handle(self.factory(), models)
        from evaluators.make import make_evaluator

        return Handle(make_evaluator(self.config.evaluate, founders.template, self.root), models)


class Handle:
    """Serves payloads one after another with one evaluator."""

    def __init__(self, evaluator: Evaluator, models: Mapping[str, Checkpoint]) -> None:
        self._evaluator = evaluator
        self._models = dict(models)
        self._stored: set[str] = set()

    def __call__(self, payload: Describe | Work) -> Any:
        """A `Description`, or results by task and document; raises what making or scoring the weights raises."""
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


def open_workers(
    config: RunConfig,
    models: Sequence[Checkpoint],
    root: Path | None,
    evaluator: Evaluator | None,
    factory: Callable[[], Evaluator] | None,
) -> WorkerPool:
    """The workers that ``config`` asks for. ``evaluator``: works in this process, on the open ``models``."""
    if evaluator is None:
        return make_pool(config.workers, Setup(config, root, factory))
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
