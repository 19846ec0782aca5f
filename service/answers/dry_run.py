"""A search's dry run."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.make import require_acknowledged
from evaluators.scores.splits import Split
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import InvalidConfig
from kinship.measures.gram import GramTable
from merging.offspring.basis import Basis, Cost, cost_of_children
from merging.offspring.span import Genome
from search.config import RunConfig
from search.history.gains import EXPECTATION
from search.running.founders import open_founders
from search.running.workers import Description, Work, describe, open_workers
from search.strategies.base import Answers, Context, Individual, Proposal
from search.strategies.make import make_strategy, resolved_name
from search.strategies.recipes import BASE
from service.answers.plan import SearchPlan

TIMED_DOCUMENTS = 16  # of each task


@dataclass(frozen=True)
class _Offspring:
    """How many there can be: in the first generation, in each later one, in all (None: no limit is known)."""

    first: int
    later: int
    most: int | None


def plan_search(config: RunConfig, root: Path, out: Path, *, timed: bool = False) -> SearchPlan:
    """What a run would do, from headers and tasks; ``timed``: a founder is scored on a few documents as well.

    Raises what the run itself would raise about its models, tasks and strategy.
    """
    if not timed and (config.evaluate.functions or config.evaluate.allow_task_code):
        raise InvalidConfig(
            "evaluate names Python code (functions, or allow_task_code), and a dry run runs none.",
            hint="Add --time, with which it runs to score a founder, or leave the code out of the plan.",
        )
    founders = open_founders(config, root)
    models = founders.models
    inline = config.model_copy(update={"workers": type(config.workers)()})
    with open_workers(inline, models, root, None, None) as pool:
        description = describe(pool)
        config.aggregate.require_tasks([task.name for task in description.tasks])
        config.aggregate.require_alike({task.name: task.metric for task in description.tasks})
        require_acknowledged(config.evaluate, description.tasks)
        seconds = _seconds_per_document(pool, models, description) if timed else None
    table = _no_table(models)
    proposals, offspring = _offspring(config, table)
    search, held_out = (sum(len(task.documents.get(split, ())) for task in description.tasks) for split in _SPLITS)
    most = offspring.most or offspring.first
    outside = _cost(models, table, proposals[0], most, out) if proposals else None
    documents = search * (len(models) + most) + held_out * (len(models) + 1)
    if config.controls:
        documents += held_out or search
    size = sum(entry.nbytes for entry in models[1].tensors.values())
    workers = config.workers.count or len(config.workers.devices) or 1
    parameters = sum(entry.count for entry in models[0].tensors.values())
    hours = None
    if seconds is not None:
        hours = (documents * seconds / workers + (outside.seconds if outside else 0.0)) / 3600
    return SearchPlan(
        founders=list(config.founders),
        frame=founders.template.id,
        ignored=list(founders.ignored),
        parameters=parameters,
        bytes_to_read=sum(entry.nbytes for model in models for entry in model.tensors.values()),
        tasks=[task.name for task in description.tasks],
        documents=search,
        documents_held_out=held_out,
        strategy=config.strategy.name,
        offspring_first_generation=min(offspring.first, most),
        offspring_later_generations=offspring.later,
        offspring_at_most=offspring.most,
        evaluations_at_most=None if offspring.most is None else offspring.most + len(models),
        documents_at_most=documents,
        workers=workers,
        seconds_per_document=seconds,
        hours_at_most=hours,
        memory=workers * (parameters * (4 if config.evaluate.device == "cpu" else 2)),
        disk=size + (outside.bytes_stored if outside else 0),
        disk_free=shutil.disk_usage(_existing(out)).free,
        expectation=EXPECTATION,
    )


_SPLITS: tuple[Split, Split] = ("search", "held_out")


def _offspring(config: RunConfig, table: GramTable) -> tuple[list[Proposal], _Offspring]:
    """The first proposals, of founders that are all alike, and how many there can be."""
    individuals = [Individual(id, 0, 0.5, role="founder", stderr=0.1) for id in config.founders]
    size = len(individuals) + 1
    context = Context(
        Individual(BASE, 0, 0.5, role="base", stderr=0.1), tuple(individuals), table.names,
        lambda one, other: 0.0, lambda one, other: 0.0, lambda: np.eye(size),
        answers=lambda id: Answers(np.full(1, 0.5), np.ones(1)),
    )  # fmt: skip
    strategy = make_strategy(config.strategy, config.merge, context, config.seed, config.stop.evaluations)
    proposals = strategy.ask()
    k, topk = config.strategy.k, resolved_name(config.strategy, config.merge) == "topk"
    later = k * (k - 1) // 2 + (config.strategy.variant != "vanilla") if topk else len(proposals)
    generations = config.stop.most_generations
    most = None if generations is None else len(proposals) + later * (generations - 1)
    if config.stop.evaluations is not None:
        most = min(most or config.stop.evaluations, config.stop.evaluations)
    return proposals, _Offspring(len(proposals), later, most)


def _seconds_per_document(pool: Any, models: list[Checkpoint], description: Description) -> float:
    """Of the first founder, on a few documents of each task; once to warm up, once timed."""
    documents = {task.name: list(task.documents["search"])[:TIMED_DOCUMENTS] for task in description.tasks}
    names = tuple(models[0].tensors)
    genome = Genome(np.repeat([[0.0, 1.0]], len(names), axis=0))
    columns = [models[0].id, models[1].id]
    took = 0.0
    for attempt in ("warm-up", "timed"):
        work = Work(f"founder, {attempt}", f"plan: {attempt}", genome.to_bytes(), names, columns, documents)
        started = time.perf_counter()
        for _ in pool.run([work]):
            pass
        took = time.perf_counter() - started
    return took / sum(map(len, documents.values()))


def _no_table(models: list[Checkpoint]) -> GramTable:
    """A Gram table of the right shape: its numbers would cost reading all weights."""
    names, size = tuple(models[0].tensors), len(models)
    counts = np.array([models[0].tensors[name].count for name in names], dtype=np.float64)
    zeros = np.zeros((len(names), size))
    return GramTable(tuple(model.id for model in models), names, counts, zeros, np.zeros((len(names), size, size)))


def _cost(models: list[Checkpoint], table: GramTable, proposal: Proposal, most: int, out: Path) -> Cost:
    return cost_of_children(Basis.open(models, table, out), proposal.recipe, most)


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
