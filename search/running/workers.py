"""What happens in a worker: it opens the founders once, and from then on turns coefficients into results.

Recipes travel, weights never: a payload is a table of coefficients and numbers of documents.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from evaluators.base import Candidate, Documents, Evaluator, Task
from evaluators.workers import Failure, WorkerPool, make_pool
from kinship.checkpoints.checkpoint import Checkpoint, unchanged
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import EvaluationFailed, InputsChanged, InvalidConfig, KinshipError, WorkersFailed
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
    """The payload that asks for a `Description`; priced: with what the documents of tasks cost."""

    priced: bool = False


@dataclass(frozen=True)
class Work:
    """The payload that asks for results: of ``documents`` by task.

    genome: bytes of coefficients, of tensors ``names`` on ``columns``, which name models of the worker or keys of
    ``stored``: the files of children outside the span. models: `Checkpoint.signature` by column; tasks: digests by
    name: what a worker opened and asks has to be what the coordinator did.
    """

    id: str
    identity: str
    genome: bytes
    names: Sequence[str]
    columns: Sequence[str]
    documents: Documents
    stored: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        id: str,
        identity: str,
        genome: Genome,
        span: Span,
        documents: Documents,
        models: Sequence[Checkpoint],
        founders: int,
        tasks: Mapping[str, str],
    ) -> Self:
        """To score a ``genome`` over ``span``: of its columns only those that are used travel, and the base's, from
        which buffers of integers are copied. models: of all columns, the first so many ``founders`` (the base too), the
        others children outside their span. tasks: all digests.
        """
        used = [0, *(np.flatnonzero(genome.coefficients[:, 1:].any(axis=0)) + 1).tolist()]
        columns = [span.ids[index] for index in used]
        return cls(
            id,
            identity,
            Genome(genome.coefficients[:, used]).to_bytes(),
            span.names,
            columns,
            documents,
            {span.ids[index]: str(models[index].path.absolute()) for index in used if index >= founders},
            {span.ids[index]: models[index].signature for index in used},
            {name: tasks[name] for name in documents},
        )


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
        """A `Description`, or results by task and document; raises what making or scoring the weights raises.

        Where files are not those that the coordinator opened, the `InputsChanged` that says so is returned instead:
        that is no failure of the individual.
        """
        if isinstance(payload, Describe):
            tasks = [_told(task, payload.priced) for task in self._evaluator.tasks]
            return Description(tasks, dict(self._evaluator.conditions))
        try:
            models = self._opened(payload)
            self._require_same(payload, models)
            with unchanged(models):
                return self._evaluator.run(self._candidate(payload, models), payload.documents)
        except InputsChanged as error:
            return error

    def candidate(self, work: Work) -> Candidate:
        """The weights that ``work`` speaks of, made when asked for."""
        return self._candidate(work, self._opened(work))

    def _candidate(self, work: Work, models: Sequence[Checkpoint]) -> Candidate:
        genome = Genome.from_bytes(work.genome, len(work.names))
        return Candidate(work.id, work.identity, lambda: materialise(genome, work.names, models))

    def _opened(self, work: Work) -> list[Checkpoint]:
        for id in self._stored - work.stored.keys():  # an open file takes up the disk even after it was removed
            self._models[id].close()
        return [self._models.get(id) or self._open(id, work.stored[id]) for id in work.columns]

    def _require_same(self, work: Work, models: Sequence[Checkpoint]) -> None:
        """Raise `InputsChanged` unless ``models`` and tasks here are those that ``work`` is about."""
        for id, model in zip(work.columns, models, strict=True):
            if model.signature != work.models.get(id, model.signature):
                raise InputsChanged(
                    f"The files of {id} in {model.path} are not those that the search was started with.",
                    hint="Every worker has to see the same files; put them back, then go on with --resume.",
                )
        here = {task.name: task.digest for task in self._evaluator.tasks}
        for name, digest in work.tasks.items():
            if here.get(name) != digest:
                raise InputsChanged(
                    f"The task {name} is not the one that the search was started with: a worker that started later "
                    "found another definition, other documents or another tokenizer.",
                    hint="Put its files back as they were, then go on with --resume.",
                )

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


def _told(task: Task, priced: bool) -> Task:
    """``task`` as it can travel: with the number that its price is, where it is ``priced``."""
    return replace(task, price=partial(float, task.price()) if priced and task.price else None)


def describe(pool: WorkerPool, priced: bool = False) -> Description:
    """Tasks and conditions of the workers' evaluator, ``priced`` or not; raises what is wrong with its settings."""
    try:
        ((_, description),) = pool.run([Describe(priced)])
    except WorkersFailed as error:
        if isinstance(error.__cause__, KinshipError):  # of a setup in this process: its own hint is the better one
            raise error.__cause__ from None
        raise
    if isinstance(description, Failure):
        raise EvaluationFailed(f"The evaluator cannot tell its tasks: {description.message}")
    assert isinstance(description, Description)
    return description
