"""The loop of a search: ask the strategy, build and score the offspring, write every result down, tell the strategy.

State lives in the ledger alone. A resumed run replays the ledger into a fresh strategy and goes on with what is
missing, so it ends as if it had never been interrupted. This process alone writes ledger and cache; workers score.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout

from evaluators.base import Candidate, Evaluator
from evaluators.cache import ScoreCache
from evaluators.make import require_acknowledged
from evaluators.scorer import Scorer
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import LedgerError
from kinship.measures.alignment import Alignment, require_same_tensors
from kinship.measures.gram import gram_table
from kinship.measures.matrix import KinshipMatrix
from merging.offspring.basis import Basis
from merging.offspring.span import Genome, Span
from merging.offspring.weights import materialise
from merging.recipe.schema import parse_recipe
from search.config import RunConfig, require_same_run
from search.ledger.database import place_of, remember
from search.ledger.ledger import Ledger, RunFacts, ending
from search.ledger.records import Record, Standings, ranked
from search.running.breeding import Breeder, Brood, compared, living
from search.running.evaluation import Documents, Scoring
from search.running.stopping import Spent, reason_to_stop
from search.running.workers import Description, Observer, Work, describe, hire, silent
from search.strategies.base import Context, Proposal, Recommends, Strategy
from search.strategies.context import Relations
from search.strategies.make import make_strategy
from search.strategies.recipes import BASE

CHILDREN = "children"  # the folder of children outside the span
GENOMES = 2048  # kept at hand
RIVALS = 64  # of the best, with whom a batch races


class Search:
    """One run in one folder. Use as a context manager: it holds the folder's lock, the models' files and the workers.

    ``root`` is where relative model paths count from. ``ledger``: the URL of a run in a database, if not in ``folder``.
    ``evaluator`` takes the place of the one that the config asks for; it works in this process, so that other workers
    need ``evaluator_factory``, which can be pickled, instead.
    Raises `LedgerError` where another process runs in ``folder``, or what is recorded there is another run.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        *,
        root: Path | None = None,
        ledger: str | None = None,
        evaluator: Evaluator | None = None,
        evaluator_factory: Callable[[], Evaluator] | None = None,
        cache: ScoreCache | None = None,
        observer: Observer = silent,
    ) -> None:
        self.config = config
        self.folder = folder
        self._observer = observer
        self._session = time.monotonic()
        self._stack = ExitStack()
        try:
            models = [
                self._stack.enter_context(open_checkpoint(path, id=id, root=root))
                for id, path in config.references.items()
            ]
            require_same_tensors(models[0], models[1:])
            # Everything that can be wrong with the inputs is found before the folder is touched.
            pool = self._stack.enter_context(hire(config, models, root, evaluator, evaluator_factory))
            self._workers = pool.size
            description = describe(pool)
            config.aggregate.require_tasks([task.name for task in description.tasks])
            config.aggregate.require_alike({task.name: task.metric for task in description.tasks})
            require_acknowledged(config.evaluate, description.tasks)
            self._stack.enter_context(_locked(folder))
            self.ledger = self._stack.enter_context(Ledger(place_of(folder, ledger), exclusive=True))
            remember(folder, self.ledger.place)
            self._before = self.ledger.seconds()
            self.facts = self._read_facts(models, description)
            # A resumed run keeps the order it was started with, whatever the order of the founders in its file.
            models.sort(key=lambda model: self.facts.table.rows.index(model.id))
            self._records = {record.id: record for record in self.ledger.records()}
            self._genome = lru_cache(maxsize=GENOMES)(lambda id: self.ledger.genomes([id])[id])
            self._breeder = Breeder(
                Basis.open(models, self.ledger.table(), folder / CHILDREN),
                self.facts.digests | {child.id: child.digest for child in self.ledger.stored()},
                self._genome,
                lambda id: parse_recipe(self._records[id].recipe),
                ((record.identity, record.id) for record in self._records.values()),
                config.seed,
                observer,
            )
            self._stack.callback(lambda: self._breeder.basis.close())
            scorer = Scorer(description, cache)
            self._scoring = Scoring(self._records, self.ledger, scorer, pool, config.aggregate, self._work, observer)
            self._relations = Relations(
                config.strategy.metric,
                lambda: self.span,
                self._genome,
                lambda id: self._records[id].fitness,
                lambda id: self._scoring.results(id, "search"),
            )
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

    @property
    def models(self) -> Sequence[Checkpoint]:
        """The base, the founders and the children outside their span, open."""
        return self._breeder.basis.models

    @property
    def span(self) -> Span:
        """What everybody so far is a linear combination of: `models`."""
        return self._breeder.basis.span

    def genome(self, id: str) -> Genome:
        """The coefficients of an individual."""
        return self._genome(id).padded(len(self.span.ids))

    def candidate(self, record: Record) -> Candidate:
        """The weights of an individual, made from the founders' files when asked for."""
        self._breeder.require_weights(record.id)
        genome = self.genome(record.id)
        return Candidate(record.id, record.identity or "", lambda: materialise(genome, self.span.names, self.models))

    def kinship(self, ids: Sequence[str] | None = None) -> KinshipMatrix:
        """Kinship of individuals from their genomes; of all but the base, where none are named."""
        everybody = [record.id for record in self.records if record.id != BASE and record.identity is not None]
        return self._relations.kinship(everybody if ids is None else ids)

    def run(self) -> str:
        """Search until something says stop; returns the reason. Interrupted, it keeps every result so far."""
        try:
            return self._run()
        except KeyboardInterrupt:
            self._note("paused")
            raise

    def _run(self) -> str:
        reason = self.ledger.stopped()
        if reason is None:
            self._note("started", {"workers": self.config.workers.model_dump(mode="json", exclude_defaults=True)})
            self._observer("started", self._standing())
            if not self._records:
                self._add(self._breeder.founders(BASE))
            self._scoring.score(self.facts.digests, "search")
            reason = self._ended()
            if reason is None:
                reason, recommended = self._search()
                self._note("ended", {"reason": reason, "recommended": recommended})
            self._score_held_out()
            self.ledger.set_stopped(reason)
        self._observer("stopped", {"reason": reason})
        return reason

    def _standing(self) -> dict[str, Any]:
        """What a session starts from."""
        leader = next(iter(ranked(self.records)), None)
        best = leader and {"individual": leader.id, "value": leader.fitness, "stderr": leader.scores["search"].stderr}
        return {
            "workers": self.config.workers.kind,
            "count": self._workers,
            "device": self.facts.conditions.get("device", "unknown"),
            "baselines": len(self.facts.digests),
            "evaluations": self.config.stop.evaluations,
            "scored": sum(record.done for record in self.records),
            "best": best,
        }

    def _ended(self) -> str | None:
        """Why the search is over though held-out scores may be missing; None while it is not."""
        end = ending(self.ledger.diary())
        return str(end["reason"]) if end else None

    def _search(self) -> tuple[str, str | None]:
        """Generation after generation, recorded ones first; returns why there is no other, and who is recommended."""
        strategy = make_strategy(
            self.config.strategy, self.config.merge, self._context(), self.config.seed, self.facts.budget
        )
        recorded: dict[int, list[Record]] = {}
        for record in self.records:
            recorded.setdefault(record.generation, []).append(record)
        baselines = recorded.pop(0)
        standings, told = Standings(baselines), list(baselines)
        evaluations, documents = 0, sum(self._documents(record) for record in baselines)
        generation = 0
        while True:
            generation += 1
            seconds = None if generation in recorded else self._seconds()
            spent = Spent(generation, evaluations, documents, seconds)
            top = standings.top(self.config.strategy.k)
            reason = reason_to_stop(self.config.stop, spent, lambda top=top: self._relations.kinship(top))  # type: ignore[misc]
            if reason is not None:
                return reason, self._recommended(strategy)
            proposals = strategy.ask()
            if not proposals:
                return self._exhausted(), self._recommended(strategy)
            if self.config.stop.evaluations is not None:
                least = len(recorded.get(generation, ()))
                proposals = proposals[: max(self.config.stop.evaluations - evaluations, least)]
            rivals = standings.top(RIVALS)
            offspring = self._generation(strategy, generation, proposals, recorded.get(generation, []), rivals)
            evaluations += len(offspring)
            documents += sum(self._documents(record) for record in offspring)
            for record in offspring:
                standings.add(record)
            told += offspring
            self._prune(told)

    def _generation(
        self,
        strategy: Strategy,
        generation: int,
        proposals: Sequence[Proposal],
        recorded: Sequence[Record],
        rivals: Sequence[str],
    ) -> list[Record]:
        """Make and score what of a generation is not on record, tell the strategy of all; returns them."""
        self._require_proposed(generation, proposals, recorded)
        ids = [record.id for record in recorded]
        new = proposals[len(recorded) :]
        if new or not all(record.done for record in recorded):
            self._observer("generation", {"generation": generation, "offspring": len(proposals)})
        if new:
            batch = 1 + max(record.batch for record in self._records.values())
            brood = self._breeder.offspring(new, generation, len(ids) + 1, batch, self._relations.mean_kinship)
            self._add(brood)
            for id, failed in brood.failures.items():
                self._observer("failed", {"individual": id, "split": failed.stage, "kind": failed.kind,
                                          "attempts": failed.attempts, "error": failed.message})  # fmt: skip
            ids += [record.id for record in brood.records]
        for batch in sorted({self._records[id].batch for id in ids if not self._records[id].done}):
            self._score_batch([id for id in ids if self._records[id].batch == batch], rivals)
        if new:
            self._note("generation", {"generation": generation})
        offspring = [self._records[id] for id in ids]
        strategy.tell([record.individual() for record in offspring])
        return offspring

    def _score_batch(self, ids: Sequence[str], rivals: Sequence[str]) -> None:
        race = self.config.race
        if race.enabled:
            self._scoring.race(ids, rivals, self.config.strategy.k, race, self.config.seed)
        else:
            self._scoring.score(ids, "search")

    def _score_held_out(self) -> None:
        """Score on the held-out split base, founders, those whom the report compares, and who is recommended.

        All were chosen on the search split; nothing is chosen by what is found here. Nothing is done where no documents
        are held out.
        """
        if "held_out" not in self._scoring.splits:
            return
        recommended = (ending(self.ledger.diary()) or {}).get("recommended")
        others = [*compared(self.records, self.config.strategy), *([recommended] if recommended else [])]
        ids = dict.fromkeys([*self.facts.digests, *others])
        self._scoring.score(ids, "held_out")

    def _prune(self, told: Sequence[Record]) -> None:
        """Remove weights of children outside the span whom nobody needs any more, as far as was ``told``."""
        if len(self.span.ids) > len(self.facts.digests):
            needed = {*self.facts.digests, *living(told, self.config.strategy)}
            needed |= self._records.keys() - {record.id for record in told}  # a replay has yet to come to them
            if pruned := self._breeder.prune(id for id in needed if self._records[id].identity is not None):
                self._note("pruned", {"children": pruned})

    def _context(self) -> Context:
        founders = tuple(self._records[id].individual() for id in self.facts.table.rows[1:])
        return Context(
            self._records[BASE].individual(),
            founders,
            self.facts.table.names,
            self._relations.closeness,
            self._relations.complementarity,
            lambda: self.facts.table.total()[0],
        )

    def _require_proposed(self, generation: int, proposals: Sequence[Proposal], recorded: Sequence[Record]) -> None:
        expected = [(proposal.recipe.to_dict(), proposal.role) for proposal in proposals[: len(recorded)]]
        if [(record.recipe, record.role) for record in recorded] != expected:
            raise LedgerError(
                f"Generation {generation} in {self.ledger.place} is not what this program would propose.",
                hint="The run was made by another version; resume it with that, or start a new one.",
            )

    def _recommended(self, strategy: Strategy) -> str | None:
        """Whom the strategy expects most of; of doubles the first."""
        choice = strategy.recommend() if isinstance(strategy, Recommends) else None
        return choice and (self._records[choice].twin or choice)

    def _exhausted(self) -> str:
        if self.config.strategy.name == "topk":
            return f"the top {self.config.strategy.k} stayed the same"
        return f"the strategy {self.config.strategy.name!r} has nothing more to propose"

    def _work(self, record: Record, documents: Documents) -> Work:
        """What a worker needs to know; the base always has a column, from which buffers of integers are copied."""
        self._breeder.require_weights(record.id)
        genome = self.genome(record.id)
        used = [0, *(np.flatnonzero(genome.coefficients[:, 1:].any(axis=0)) + 1).tolist()]
        columns = [self.span.ids[index] for index in used]
        stored = [id for id in columns if id not in self.facts.digests]
        return Work(
            record.id,
            record.identity or "",
            Genome(genome.coefficients[:, used]).to_bytes(),
            self.span.names,
            columns,
            documents,
            {id: str((self.folder / CHILDREN / f"{id}.safetensors").absolute()) for id in stored},
        )

    @staticmethod
    def _documents(record: Record) -> int:
        """Documents that the search has paid for."""
        score = record.scores.get("search")
        return 0 if score is None or record.twin else int(score.facts["documents"])

    def _add(self, brood: Brood) -> None:
        self.ledger.add(brood.records, brood.genomes, brood.failures, brood.stored)
        self._records |= {record.id: record for record in brood.records}

    def _seconds(self) -> float:
        """How long the run has worked, in all sessions."""
        return self._before + time.monotonic() - self._session

    def _note(self, name: str, facts: Mapping[str, Any] | None = None) -> None:
        self.ledger.note(name, facts or {}, self._seconds())

    def _read_facts(self, models: Sequence[Checkpoint], description: Description) -> RunFacts:
        config = self.config.model_dump(mode="json", exclude={"workers"})
        digests = {model.id: model.digest for model in models}
        tasks = {task.name: {"metric": task.metric, "digest": task.digest} for task in description.tasks}
        facts = self.ledger.facts()
        if facts is None:
            self._observer("phase", {"phase": "reading"})
            table = gram_table(models[0], models[1:], Alignment(tuple(models[0].tensors)))
            budget = self.config.stop.evaluations
            facts = RunFacts(config, digests, table, tasks, dict(description.conditions), budget)
            self.ledger.start(facts)
            return facts
        require_same_run(self.folder, facts, config, digests, tasks)
        if config != facts.config:
            self.ledger.set_config(config)
            self.ledger.set_stopped(None)
            self._note("extended", {"stop": config["stop"]})
        return facts


def _locked(folder: Path) -> FileLock:
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LedgerError(f"Another process is running in {folder}.", hint="Wait for it, or stop it first.") from None
    return lock
