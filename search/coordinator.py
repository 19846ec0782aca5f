"""The loop of a search: ask the strategy, build and score the offspring, write every result down, tell the strategy.

State lives in the ledger alone. A resumed run replays the ledger into a fresh strategy and goes on with what is
missing, so it ends as if it had never been interrupted.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from evaluators.base import Candidate, Evaluator
from evaluators.cache import ScoreCache
from evaluators.scorer import Scorer
from evaluators.splits import Split
from kinship.alignment import Alignment, require_same_tensors
from kinship.checkpoint import Checkpoint
from kinship.errors import EvaluationFailed, LedgerError, NonFiniteWeights
from kinship.gram import gram_table
from kinship.matrix import KinshipMatrix
from kinship.opening import open_checkpoint
from merging.identity import genome_identity
from merging.materialise import materialise
from merging.span import Genome, Span
from search.config import RunConfig
from search.ledger import LEDGER_NAME, Ledger, Record, RunFacts
from search.mating import BASE, recipe_for
from search.population import Individual
from search.stopping import reason_to_stop
from search.strategies.base import Strategy
from search.strategies.topk import TopKGreedy

Observer = Callable[[str, Mapping[str, Any]], None]
"""Told of events as (name, facts); a result is told only once it is durable."""


class Search:
    """One run in one folder. Use as a context manager: it holds the folder's lock and the models' files.

    ``root`` is where relative model paths count from. ``evaluator`` defaults to the lm-eval harness.
    Raises `LedgerError` where another process runs in ``folder``, or what is recorded there is another run.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        *,
        root: Path | None = None,
        evaluator: Evaluator | None = None,
        cache: ScoreCache | None = None,
        observer: Observer = lambda name, facts: None,
    ) -> None:
        self.config = config
        self.folder = folder
        self._observer = observer
        self._stack = ExitStack()
        try:
            self.models = [
                self._stack.enter_context(open_checkpoint(path, id=id, root=root))
                for id, path in {BASE: config.base, **config.founders}.items()
            ]
            require_same_tensors(self.models[0], self.models[1:])
            if evaluator is None:
                from evaluators.harness import Harness

                evaluator = Harness(config.evaluate, self.models[0], root)
            # Everything that can be wrong with the inputs is found before the folder is touched.
            self._stack.enter_context(_lock(folder))
            self.ledger = Ledger(folder / LEDGER_NAME)
            self._stack.callback(self.ledger.close)
            self._scorer = Scorer(evaluator, cache)
            self.facts = self._read_facts()
            # A resumed run keeps the order it was started with, whatever the order of the founders in its file.
            self.models.sort(key=lambda model: self.facts.table.rows.index(model.id))
            self.span = Span.over(self.facts.table)
            self._records = {record.id: record for record in self.ledger.records()}
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def records(self) -> list[Record]:
        """Every individual so far, in the order proposed."""
        return list(self._records.values())

    def run(self) -> str:
        """Search until something says stop; returns the reason."""
        self._ensure_founders()
        strategy: Strategy = TopKGreedy(
            self.config.strategy,
            [_individual(self._records[id]) for id in self.config.founders],
            self._closeness,
            self.config.seed,
        )
        generation, reason = 0, None
        while reason is None:
            generation += 1
            offspring, reason = self._next_generation(strategy, generation)
            if offspring:
                strategy.tell([_individual(record) for record in offspring])
        self._score_held_out()
        self.ledger.set_stopped(reason)
        self._observer("stopped", {"reason": reason})
        return reason

    def candidate(self, record: Record) -> Candidate:
        """The weights of an individual, made from the founders' files when asked for."""
        return Candidate(record.id, record.identity, lambda: materialise(record.genome, self.span.names, self.models))

    def kinship(self) -> KinshipMatrix:
        """Kinship of all individuals but the base, from their genomes."""
        genomes = {record.id: record.genome for record in self.records if record.id != BASE}
        return self.span.kinship(genomes, self.config.strategy.metric)

    def _next_generation(self, strategy: Strategy, generation: int) -> tuple[list[Record], str | None]:
        """The generation's scored offspring, or none and the reason to stop."""
        earlier = [record for record in self.records if record.generation < generation]
        scored = [record for record in earlier if record.generation > 0]
        top = ranked(earlier)[: self.config.strategy.k]
        genomes = {record.id: record.genome for record in top}
        kinship = self.span.kinship(genomes, self.config.strategy.metric)
        reason = reason_to_stop(self.config.stop, generation, len(scored), list(genomes), kinship)
        if reason is not None:
            return [], reason
        matings = strategy.ask()
        offspring = [record for record in self.records if record.generation == generation]
        if self.config.stop.evaluations is not None:
            matings = matings[: max(self.config.stop.evaluations - len(scored), len(offspring))]
        if not matings:
            return [], f"the top {self.config.strategy.k} stayed the same"
        if [(*record.parents, record.role) for record in offspring] != [
            (*mating.parents, mating.role) for mating in matings[: len(offspring)]
        ]:
            raise LedgerError(
                f"Generation {generation} in {self.ledger.path} is not what this program would propose.",
                hint="The run was made by another version; resume it with that, or start a new one.",
            )
        offspring += self._propose(generation, matings[len(offspring) :], len(offspring) + 1)
        self._observer("generation", {"generation": generation, "offspring": len(offspring)})
        return [self._ensure_scored(record, "search") for record in offspring], None

    def _propose(self, generation: int, matings: list[Any], first: int) -> list[Record]:
        genomes = {record.id: record.genome for record in self.records}
        children = []
        for number, mating in enumerate(matings, first):
            self._observer("phase", {"phase": "merging", "individual": f"{generation}-{number}"})
            recipe = recipe_for(mating, self.config.merge)
            parents = {id: genomes[id] for id in mating.parents}
            kinship = self.span.kinship(parents, self.config.strategy.metric)[mating.parents]
            children.append(
                self._record(
                    f"{generation}-{number}",
                    self.span.merge(recipe, genomes),
                    generation=generation,
                    role=mating.role,
                    parents=mating.parents,
                    recipe=recipe.to_dict(),
                    kinship=None if math.isnan(kinship) else kinship,
                )
            )
        self._add(children)
        return children

    def _ensure_founders(self) -> None:
        if not self._records:
            self._add(
                [
                    self._record(
                        id,
                        self.span.founder(id),
                        generation=0,
                        role="base" if id == BASE else "founder",
                        parents=(),
                        recipe={},
                    )
                    for id in self.span.ids
                ]
            )
        for id in self.span.ids:
            self._ensure_scored(self._records[id], "search")

    def _ensure_scored(self, record: Record, split: Split) -> Record:
        if split in record.scores or record.error is not None:
            return record
        self._observer("phase", {"phase": "scoring", "individual": record.id, "split": split})
        try:
            score = self._scorer.score(self.candidate(record), split)
        except (EvaluationFailed, NonFiniteWeights) as error:
            if record.generation == 0:
                raise
            self.ledger.record_failure(record.id, error.message)
            self._refresh(record, error=error.message)
            self._observer("failed", {"individual": record.id, "error": error.message})
        else:
            self.ledger.record_score(record.id, split, score)
            self._refresh(record, scores=record.scores | {split: score})
            self._observer("scored", {"individual": record.id, "split": split, **score.to_dict()})
        return self._records[record.id]

    def _score_held_out(self) -> None:
        """Score on the held-out split what the report compares: base, founders, and each generation's best so far.

        All were chosen on the search split; nothing is chosen by what is found here.
        """
        best = best_offspring(self.records)
        for id in [*self.span.ids, *best_so_far(self.records), *([best.id] if best else [])]:
            self._ensure_scored(self._records[id], "held_out")

    def _closeness(self, one: str, other: str) -> float:
        pair = {id: self._records[id].genome for id in (one, other)}
        kinship = self.span.kinship(pair, self.config.strategy.metric)
        return kinship.spec.closeness(kinship[one, other])

    def _record(self, id: str, genome: Genome, **facts: Any) -> Record:
        return Record(id=id, genome=genome, identity=genome_identity(genome, self.span, self.facts.digests), **facts)

    def _add(self, records: list[Record]) -> None:
        self.ledger.add(records)
        self._records |= {record.id: record for record in records}

    def _refresh(self, record: Record, **changes: Any) -> None:
        self._records[record.id] = replace(record, **changes)

    def _read_facts(self) -> RunFacts:
        config = self.config.model_dump(mode="json")
        digests = {model.id: model.digest for model in self.models}
        facts = self.ledger.facts()
        if facts is None:
            self._observer("phase", {"phase": "reading"})
            table = gram_table(self.models[0], self.models[1:], _everything(self.models[0]))
            facts = RunFacts(config, digests, table)
            self.ledger.start(facts)
            return facts
        for key in config:
            if key != "stop" and config[key] != facts.config[key]:
                raise LedgerError(
                    f"The run in {self.folder} was started with another {key!r}: {facts.config[key]}.",
                    hint="Resume with the run file it was started with (stop: may change), or choose another --out.",
                )
        for id, digest in digests.items():
            if digest != facts.digests[id]:
                raise LedgerError(
                    f"The weights of {id} changed since the run in {self.folder} was started.",
                    hint="Put the old weights back, or start a new run.",
                )
        if config != facts.config:
            self.ledger.set_config(config)
            self.ledger.set_stopped(None)
        return facts


def ranked(records: list[Record]) -> list[Record]:
    """The founders and offspring that have a score on the search split, best first; equal scores by id."""
    scored = [record for record in records if record.id != BASE and record.fitness is not None]
    return sorted(scored, key=lambda record: (-(record.fitness or 0.0), record.id))


def best_offspring(records: list[Record]) -> Record | None:
    """The offspring with the best score on the search split."""
    return next((record for record in ranked(records) if record.generation > 0), None)


def best_so_far(records: list[Record]) -> list[str]:
    """Ids of the best individual after each generation, on the search split, each once, in order."""
    leaders: list[str] = []
    for generation in sorted({record.generation for record in records}):
        best = ranked([record for record in records if record.generation <= generation])[:1]
        leaders += [record.id for record in best if record.id not in leaders]
    return leaders


def _individual(record: Record) -> Individual:
    return Individual(record.id, record.generation, record.fitness, record.parents)


def _everything(base: Checkpoint) -> Alignment:
    return Alignment(tuple(base.tensors))


def _lock(folder: Path) -> FileLock:
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LedgerError(f"Another process is running in {folder}.", hint="Wait for it, or stop it first.") from None
    return lock
