"""The loop of a search: ask the strategy, build and score the offspring, write every result down, tell the strategy.

State lives in the ledger alone. A resumed run replays the ledger into a fresh strategy and goes on with what is
missing, so it ends as if it had never been interrupted. This process alone writes ledger and cache; workers score.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from evaluators.base import Candidate, Documents, Evaluator
from evaluators.cache import ScoreCache
from evaluators.cached import CachedEvaluator
from evaluators.make import require_acknowledged
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import InputsChanged, KinshipError
from kinship.file_state import require_unchanged
from kinship.measures.alignment import Alignment
from kinship.measures.gram import gram_table
from kinship.measures.matrix import KinshipMatrix
from merging.offspring.basis import Absent, Basis
from merging.offspring.span import Genome, Span
from merging.offspring.weights import materialise
from search.config import RunConfig
from search.history.exploration import offered
from search.ledger.individuals import Individuals
from search.ledger.ledger import Ledger, RunFacts
from search.ledger.location import (
    hold_folder,
    location_of,
    mark_started,
    replaced_run,
    require_ledger,
    write_pointer,
)
from search.ledger.records import Record, finalists, still_needed
from search.running.breeding import Breeder, Brood
from search.running.controls import score_random_vector
from search.running.evaluation import Evaluation, MakeWork
from search.running.events import Observer, failure, silent, standing
from search.running.founders import open_founders
from search.running.resuming import require_proposed, require_resumable
from search.running.stopping import Progress, reason_to_stop
from search.running.workers import Description, Work, describe, open_workers
from search.strategies.base import Proposal
from search.strategies.make import resolved_name
from search.strategies.recipes import BASE

CHILDREN = "children"  # the folder of children outside the span
RIVALS = 64  # of the best, with whom a batch races


class Search:
    """One run in one folder. Use as a context manager: it holds the folder's lock, the models' files and the workers.

    ``root`` is where relative model paths count from. ``ledger``: the URL of a run in a database, if not in ``folder``.
    ``evaluator`` takes the place of the one that the config asks for; it works in this process, so that other workers
    need ``evaluator_factory``, which can be pickled, instead. ``force``: a run that is there is replaced, once all
    inputs are checked and the new one has begun.
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
        force: bool = False,
    ) -> None:
        self.config = config
        self.folder = folder
        self._observer = observer
        self._session = time.monotonic()
        self._stack = ExitStack()
        try:
            founders = open_founders(config, root)
            self.template = founders.template
            self._pinned = founders.pinned
            models = [self._stack.enter_context(model) for model in founders.models]
            # Everything that can be wrong with the inputs is found before the folder is touched.
            pool = self._stack.enter_context(open_workers(config, models, root, evaluator, evaluator_factory))
            self._workers = pool.size
            description = describe(pool, config.race.enabled)
            config.aggregate.require_tasks([task.name for task in description.tasks])
            config.aggregate.require_alike({task.name: task.metric for task in description.tasks})
            require_acknowledged(config.evaluate, description.tasks)
            with replaced_run(folder) if force else nullcontext():
                self._stack.enter_context(hold_folder(folder))
                location = location_of(folder, ledger)
                require_ledger(folder, location)
                self.ledger = self._stack.enter_context(Ledger(location, exclusive=True))
                write_pointer(folder, self.ledger.location)
                self._before = 0.0 if force else self.ledger.seconds()
                self.ledger.clock = self._seconds
                self.facts = self._read_facts(models, description, force=force)
            # A resumed run keeps the order it was started with, whatever the order of the founders in its file.
            models.sort(key=lambda model: self.facts.table.rows.index(model.id))
            self._individuals = Individuals(self.ledger, self.facts)
            self._breeder = Breeder(
                Basis.open(models, self.ledger.table(), folder / CHILDREN),
                self.facts.digests | {child.id: child.digest for child in self.ledger.stored()},
                self._individuals,
                config.seed,
                observer,
            )
            self._stack.callback(lambda: self._breeder.basis.close())
            self._require_children()
            self._tasks = {task.name: task.digest for task in description.tasks}
            scorer = CachedEvaluator(description, cache)

            def evaluation(individuals: Individuals, work: MakeWork, told: Observer) -> Evaluation:
                aggregate, unchanged = config.aggregate, self.require_unchanged
                return Evaluation(individuals, self.ledger, scorer, pool, aggregate, work, unchanged, told)

            self._make_evaluation = evaluation
            self._evaluation = evaluation(self._individuals, self._work, observer)
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
        return list(self._individuals.records.values())

    @property
    def models(self) -> Sequence[Checkpoint]:
        """The base, the founders and the children outside their span, open."""
        return self._breeder.basis.models

    @property
    def span(self) -> Span:
        """What everybody so far is a linear combination of: `models`."""
        return self._individuals.span

    def genome(self, id: str) -> Genome:
        """The coefficients of an individual."""
        return self._individuals.genome(id)

    def candidate(self, record: Record) -> Candidate:
        """The weights of an individual, made from the founders' files when asked for.

        Raises `MalformedCheckpoint` where a child whose weights were removed cannot be made as it was.
        """
        self._breeder.require_weights(record.id)
        genome = self.genome(record.id)
        return Candidate(record.id, record.identity or "", lambda: materialise(genome, self.span.names, self.models))

    def kinship(self, ids: Sequence[str] | None = None) -> KinshipMatrix:
        """Kinship of individuals from their genomes; of all but the base, where none are named."""
        everybody = [record.id for record in self.records if record.id != BASE and record.identity is not None]
        return self._individuals.kinship(everybody if ids is None else ids)

    def _require_children(self) -> None:
        """Raise `InputsChanged` where a stored child is not what the run wrote."""
        there = {model.id: model for model in self.models if not isinstance(model, Absent)}
        for child in self.ledger.stored():
            if child.id in there and there[child.id].digest != child.digest:
                raise InputsChanged(
                    f"{there[child.id].path} is not what the run wrote there.",
                    hint="Remove it: the run makes it again.",
                )

    def require_unchanged(self) -> None:
        """Raise `InputsChanged` where a file of base, founders or stored children is not as the run opened it."""
        require_unchanged(self._pinned)
        for child in self.models[len(self.facts.digests) :]:
            if not isinstance(child, Absent):
                child.require_unchanged()

    def run(self) -> str:
        """Search until something says stop; returns the reason. Interrupted, it keeps every result so far.

        Raises `EvaluationFailed` where the base or a founder cannot be scored, `LedgerError` where the ledger cannot be
        written or the strategy does not propose what is on record, `OutputNotWritable` where a child cannot be, and
        `InputsChanged` where anybody changed a file of the base or a founder: what came of it is not kept.
        """
        try:
            return self._run()
        except (KinshipError, OSError):
            self.require_unchanged()  # else that is the reason
            raise
        except KeyboardInterrupt:
            self._note("paused")
            raise

    def _run(self) -> str:
        reason = self.ledger.stopped()
        if reason is None:
            self._begin()
            reason = self.ledger.ended()
            if reason is None:
                reason = self._search()
                self._note("ended", {"reason": reason})
            if "held_out" in self._evaluation.splits:
                # Chosen on the search split; nothing is chosen by what is found here.
                self._evaluation.score(
                    dict.fromkeys([*self.facts.digests, *finalists(self.records, self.config.strategy)]), "held_out"
                )
            if self.config.controls:
                founders = self.models[: len(self.facts.digests)]
                score_random_vector(
                    self.ledger, self.facts, founders, self.folder, self._make_evaluation, self._observer
                )
            self.require_unchanged()
            self.ledger.set_stopped(reason)
        self._observer("stopped", {"reason": reason})
        return reason

    def _begin(self) -> None:
        """A session begins: base and founders have their scores when this returns."""
        self._note("started", {"workers": self.config.workers.model_dump(mode="json", exclude_defaults=True)})
        facts = {"workers": self.config.workers.kind, "count": self._workers, "baselines": len(self.facts.digests)}
        conditions = {"device": self.facts.conditions.get("device", "unknown")}
        budget = {"evaluations": self.config.stop.evaluations}
        self._observer("started", facts | conditions | budget | standing(self.records))
        if not self._individuals.records:
            self._add(self._breeder.founders(BASE))
        self._evaluation.score(self.facts.digests, "search")

    def _search(self) -> str:
        """Generation after generation, recorded ones first; returns why there is no other."""
        strategy = self._individuals.strategy()
        recorded: dict[int, list[Record]] = {}
        for record in self.records:
            recorded.setdefault(record.generation, []).append(record)
        progress = Progress(recorded.pop(0))
        while True:
            there = recorded.get(progress.generation, [])
            reason = self._reason_to_stop(progress, on_record=bool(there))
            if reason is not None:
                return reason
            proposals = strategy.ask()
            if not proposals:
                return self._exhausted()
            if self.config.stop.evaluations is not None:
                proposals = proposals[: max(self.config.stop.evaluations - progress.evaluations, len(there))]
            offspring = self._generation(progress, proposals, there)
            strategy.tell([record.individual() for record in offspring])
            progress.add(offspring)
            self._prune(progress.told)

    def _reason_to_stop(self, progress: Progress, *, on_record: bool) -> str | None:
        spent = progress.spent(None if on_record else self._seconds())
        top = progress.top(self.config.strategy.k)
        return reason_to_stop(self.config.stop, spent, lambda: self._individuals.kinship(top))

    def _exhausted(self) -> str:
        if resolved_name(self.config.strategy, self.config.merge) == "topk":
            return f"the top {self.config.strategy.k} stayed the same"
        return f"the strategy {self.config.strategy.name!r} has nothing more to propose"

    def _generation(
        self, progress: Progress, proposals: Sequence[Proposal], recorded: Sequence[Record]
    ) -> list[Record]:
        """Make and score what of the next generation is not on record; returns all of it."""
        generation, rivals = progress.generation, progress.top(RIVALS)
        require_proposed(self.ledger.location, generation, proposals, recorded)
        records = self._individuals.records
        ids = [record.id for record in recorded]
        new = proposals[len(recorded) :]
        goes_on = bool(new) or not all(record.done for record in recorded)
        there = offered(progress.told, self.config) if goes_on else {}
        if goes_on:
            self._observer("generation", {"generation": generation, "offspring": len(proposals)} | there)
        if new:
            batch = 1 + max(record.batch for record in records.values())
            brood = self._breeder.offspring(new, generation, len(ids) + 1, batch)
            self._add(brood)
            for id, failed in brood.failures.items():
                self._observer("failed", failure(id, failed))
            ids += [record.id for record in brood.records]
        for batch in sorted({records[id].batch for id in ids if not records[id].done}):
            self._score([id for id in ids if records[id].batch == batch], rivals)
        if new:
            self._note("generation", {"generation": generation} | there)
        return [records[id] for id in ids]

    def _score(self, ids: Sequence[str], rivals: Sequence[str]) -> None:
        race = self.config.race
        if race.enabled:
            self._evaluation.race(ids, rivals, self.config.strategy.k, race, self.config.seed)
        else:
            self._evaluation.score(ids, "search")

    def _prune(self, told: Sequence[Record]) -> None:
        """Remove weights of children outside the span whom nobody needs any more, as far as was ``told``."""
        if len(self.span.ids) > len(self.facts.digests):
            records = self._individuals.records
            needed = {*self.facts.digests, *still_needed(told, self.config.strategy)}
            needed |= records.keys() - {record.id for record in told}  # a replay has yet to come to them
            if pruned := self._breeder.prune(id for id in needed if records[id].identity is not None):
                self._note("pruned", {"children": pruned})

    def _work(self, id: str, documents: Documents) -> Work:
        """What a worker needs to know to score an individual."""
        self._breeder.require_weights(id)
        identity, founders = self._individuals.records[id].identity or "", len(self.facts.digests)
        return Work.of(id, identity, self.genome(id), self.span, documents, self.models, founders, self._tasks)

    def _add(self, brood: Brood) -> None:
        self.require_unchanged()
        self.ledger.add(brood.records, brood.genomes, brood.failures, brood.stored)
        self._individuals.include(brood.records, self._breeder.basis.span)

    def _seconds(self) -> float:
        """How long the run has worked, in all sessions."""
        return self._before + time.monotonic() - self._session

    def _note(self, name: str, facts: Mapping[str, Any] | None = None) -> None:
        self.ledger.note(name, facts or {}, self._seconds())

    def _read_facts(self, models: Sequence[Checkpoint], description: Description, *, force: bool) -> RunFacts:
        """What the run was started with; a new run starts, another one is refused or by ``force`` replaced, one to be
        extended is."""
        digests = {model.id: model.digest for model in models}
        tasks = {task.name: {"metric": task.metric, "digest": task.digest} for task in description.tasks}
        facts = self.ledger.facts()
        if facts is None or force:
            if facts is None:
                require_ledger(self.folder, self.ledger.location, empty=True)
            self._observer("phase", {"phase": "reading"})
            table = gram_table(models[0], models[1:], Alignment(tuple(models[0].tensors)))
            require_unchanged(self._pinned)
            budget = self.config.stop.evaluations
            if facts is not None:  # of a database, which the folder that was moved aside only pointed to
                self.ledger.delete()
            facts = RunFacts(self.config, digests, table, tasks, dict(description.conditions), budget)
            self.ledger.start(facts)
            mark_started(self.folder)
            return facts
        mark_started(self.folder)  # by an earlier version perhaps
        require_resumable(str(self.folder), facts, self.config, digests, tasks)
        if self.config.stop != facts.config.stop:
            self.ledger.set_config(self.config)
            self.ledger.set_stopped(None)
            self._note("extended", {"stop": self.config.stop.model_dump(mode="json")})
        elif self.config.to_record() != facts.config.to_record():
            self.ledger.set_config(self.config)
            if self.config.controls != facts.config.controls:
                self.ledger.set_stopped(None)  # the search is over; what it is compared with may be missing
            self._note("moved", {"models": self.config.references})
        return replace(facts, config=self.config)
