"""The workers of a search, and what their evaluator says of itself."""

from collections.abc import Callable, Sequence
from pathlib import Path

from evaluators.base import Evaluator
from evaluators.workers import Failure, WorkerPool, make_pool
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import EvaluationFailed, InvalidConfig, KinshipError, WorkersFailed
from search.config import RunConfig
from search.worker import Describe, Description, Handle, Setup


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
