"""A comparison as it runs: every arm made in memory and scored, once, in a folder that it can go on in."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

from evaluators.base import Documents, Evaluator
from evaluators.cache import ScoreCache
from evaluators.cached import CachedEvaluator
from evaluators.make import make_evaluator
from evaluators.scores.aggregates import alike
from evaluators.scores.splits import SPLITS, Split
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.unified import unified
from kinship.errors import CacheError, InvalidConfig, KinshipError, OutputNotWritable, SystemRefused
from kinship.file_state import FileState, require_unchanged, states_of
from kinship.measures.alignment import require_same_tensors
from merging.output.writer import sha256
from merging.recipe.data import DataSource
from merging.registry import get_method
from search.comparison.arms import Arm, baselines, by_cell, controls, every_arm, whole
from search.comparison.cost import measured_cost
from search.comparison.frames import chosen_frame
from search.comparison.making import Made, counted_flops, make
from search.comparison.plan import ComparisonPlan
from search.comparison.store import NAME, Done, Store
from search.ledger.location import hold_folder
from search.running.founders import states_to_pin

SCORES, STATISTICS, FRESH = "scores.sqlite", "statistics", ".statistics-"

_OF_THE_PLACE = (OutputNotWritable, CacheError, SystemRefused)  # no arm's own fault: the next one would fail, too

Progress = Callable[[int, int, str], None]
Values = Mapping[str, Mapping[int, float]]
"""The metric by document, by cell."""


@dataclass(frozen=True)
class Tested:
    """What all arms were scored on: the documents of each split by seed and cell, metrics by cell, conditions."""

    splits: Mapping[int, Mapping[str, Mapping[Split, Sequence[int]]]]
    metrics: Mapping[str, str]
    conditions: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """What was found of an arm: its values, or why it has none."""

    values: Values
    done: Done | None = None
    error: str | None = None


@dataclass(frozen=True)
class Outcomes:
    """Everything that was found."""

    plan: ComparisonPlan
    tested: Tested
    arms: Mapping[Arm, Outcome]


def run_comparison(
    plan: ComparisonPlan,
    folder: Path,
    *,
    root: Path,
    cache: ScoreCache | None = None,
    progress: Progress = lambda done, total, label: None,
) -> Outcomes:
    """Do what ``plan`` says in ``folder``, or go on with it; what another plan has done there counts where it is alike.

    Paths count from ``root``. cache: where scores are kept; default: a file in the folder. An arm that fails costs only
    itself. ``progress`` is told arms done, arms in all and the arm at hand. Raises the errors of `make_evaluator`,
    `InvalidConfig` for a plan that cannot be carried out, `LedgerError` where another process runs in the folder.
    """
    plan.require_methods()
    ready = _Running(plan.rooted(root), folder, root)
    lock = hold_folder(folder)  # made after all checks: a plan that is refused leaves nothing behind
    try:
        return ready.all(cache or ScoreCache(folder / SCORES), Store(folder / NAME), progress)
    finally:
        lock.release(force=True)


class _Running:
    def __init__(self, plan: ComparisonPlan, folder: Path, root: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._arms = every_arm(plan)
        self._labels = _labels(plan)
        self._digests, frame, self._pinned = _examined(plan, root)
        self._keys = {arm: arm.key(plan, self._digests) for arm in self._arms}
        self._costed = {whole(plan, name, seed) for name in plan.methods for seed in plan.seeds}
        self._counted = {whole(plan, name, plan.seeds[0]) for name in plan.methods}
        self._evaluator, self._tested = _tested(plan, root, frame)
        self._documents = _union(plan, self._tested)
        self._statistics = folder / STATISTICS
        self._scoring_counted = False

    def all(self, cache: ScoreCache, store: Store, progress: Progress) -> Outcomes:
        self._scorer, self._store = CachedEvaluator(self._evaluator, cache), store
        for left in self._folder.glob(f"{FRESH}*"):  # by a process that was killed
            rmtree(left)
        known = self._store.all()
        self._scoring_counted = any(done.evaluation and done.evaluation.flops for done in known.values())
        found: dict[Arm, Outcome] = {}
        for place, arm in enumerate(self._arms):
            if self._keys[arm] not in known:  # what is known takes no time, and would flatter the time left
                progress(place, len(self._arms), self._labels.get(arm, arm.method))
            found[arm] = self._outcome(arm, known.get(self._keys[arm]))
        progress(len(self._arms), len(self._arms), "done")
        return Outcomes(self._plan, self._tested, found)

    def _outcome(self, arm: Arm, done: Done | None) -> Outcome:
        if done is not None:
            results, missing = self._scorer.missing(done.identity, self._documents)
            if not missing:
                return Outcome(self._by_cell(results), done)
        try:
            done = self._do(arm)
        except KinshipError as error:
            self._require_unchanged()  # else that is the reason
            if arm.kind == "model" or isinstance(error, _OF_THE_PLACE):  # nothing can be said without them
                raise
            return Outcome({}, error=error.message)
        self._store.add(self._keys[arm], done)
        results, _ = self._scorer.missing(done.identity, self._documents)
        return Outcome(self._by_cell(results), done)

    def _do(self, arm: Arm) -> Done:
        from search.comparison.flops import counted

        label = self._labels.get(arm, f"{arm.method} {dict(arm.values)}")
        if arm in self._costed:  # what it costs is measured from nothing
            with TemporaryDirectory(prefix=FRESH, dir=self._folder) as empty:
                made = make(self._plan, arm, label, empty)
            self._count(arm, made)
        else:
            made = make(self._plan, arm, label, str(self._statistics))
        candidate = replace(made.candidate, require_unchanged=self._require_unchanged)
        known, missing = self._scorer.missing(candidate.identity, self._documents)
        fresh = not any(known.values())
        with measured_cost() as cost, ExitStack() as stack:
            counting = stack.enter_context(counted()) if fresh and not self._scoring_counted else None
            self._scorer.score(candidate, self._documents, lambda done, total: None)
        self._require_unchanged()
        if counting is not None:
            cost.flops, self._scoring_counted = counting.flops, True
        count = sum(map(len, missing.values()))
        return Done(candidate.identity, made.merge, made.statistics, cost if fresh else None, count if fresh else 0)

    def _require_unchanged(self) -> None:
        """Raise `InputsChanged`: the keys of arms are about files as they were."""
        require_unchanged(self._pinned)

    def _count(self, arm: Arm, made: Made) -> None:
        """Count what one merge of each method takes, apart from measuring it, which counting slows down."""
        if arm in self._counted and made.merge is not None:
            with TemporaryDirectory(prefix=FRESH, dir=self._folder) as empty:
                made.merge.flops, statistics = counted_flops(self._plan, arm, empty)
            if made.statistics is not None:
                made.statistics.flops = statistics

    def _by_cell(self, results: Values) -> Values:
        return {name: results[self._plan.task_of(name)] for name in self._plan.cells}


def _tested(plan: ComparisonPlan, root: Path, frame: str) -> tuple[Evaluator, Tested]:
    """An evaluator in the frame of the model ``frame``, and what it tests under each seed. Raises `InvalidConfig` where
    a seed changes more than splits.
    """
    splits: dict[int, Mapping[str, Mapping[Split, Sequence[int]]]] = {}
    digests: dict[str, str] = {}
    evaluator: Evaluator | None = None
    beside = any(get_method(plan.method_of(name)).beside for name in plan.methods)
    with open_checkpoint(frame) as template:
        for seed in plan.seeds:
            settings = plan.evaluate.model_copy(update={"split_seed": seed})
            made = make_evaluator(settings, template, root, beside=beside)
            tasks = {task.name: task for task in made.tasks}
            _require_tasks(plan, list(tasks))
            if digests and digests != {name: task.digest for name, task in tasks.items()}:
                raise InvalidConfig(
                    "A seed changes more than which documents are held out: the tasks' few-shot examples come from "
                    "their own documents.",
                    hint="Give seeds: [0], num_fewshot: 0, or tasks with examples of their own.",
                )
            digests = {name: task.digest for name, task in tasks.items()}
            splits[seed] = {name: tasks[plan.task_of(name)].documents for name in plan.cells}
            evaluator = evaluator or made
    assert evaluator is not None
    metrics = {name: tasks[plan.task_of(name)].metric for name in plan.cells}
    if not alike(metrics.values()):
        raise InvalidConfig(
            f"The cells' metrics are unlike, and have no mean: {', '.join(dict.fromkeys(metrics.values()))}.",
            hint="Give all tasks one metric, by evaluate.metric.",
        )
    if any(set(SPLITS) - documents.keys() for cells in splits.values() for documents in cells.values()):
        raise InvalidConfig("Nothing is held out.", hint="Give evaluate.search_fraction less than 1.")
    return evaluator, Tested(splits, metrics, dict(evaluator.conditions))


def _require_tasks(plan: ComparisonPlan, tasks: Sequence[str]) -> None:
    from kinship.errors import nearest

    for name in plan.cells:
        if plan.task_of(name) not in tasks:
            raise InvalidConfig(
                f"The cell {name} has the task {plan.task_of(name)!r}, which evaluate does not name.",
                hint=nearest(plan.task_of(name), tasks),
            )


def _union(plan: ComparisonPlan, tested: Tested) -> Documents:
    """The documents of every split and seed, by task."""
    return {
        plan.task_of(name): sorted(
            {document for cells in tested.splits.values() for split in SPLITS for document in cells[name][split]}
        )
        for name in plan.cells
    }


def _examined(plan: ComparisonPlan, root: Path) -> tuple[dict[str, str], str, dict[Path, FileState]]:
    """Digests of models and documents by how the plan names them, the model whose frame everybody gets, and the states
    of all their files from before they were read.

    Raises `MismatchedModels` and as `chosen_frame`, from headers and small files alone.
    """
    with ExitStack() as stack:
        opened = {name: stack.enter_context(open_checkpoint(name, root=root)) for name in plan.models}
        pinned = {file: state for model in opened.values() for file, state in states_to_pin(model).items()}
        alike, _ = unified([opened[plan.base], *opened.values()])
        require_same_tensors(alike[0], alike[1:])
        frame = chosen_frame(plan, opened)
        found = {reference: model.digest for reference, model in opened.items()}
    for file in filter(None, [plan.data.file, *(cell.data for cell in plan.cells.values())]):
        DataSource(file=file).require_there()
        pinned |= states_of([Path(file)])
        found[file] = sha256(Path(file))
    return found, frame, pinned


def _labels(plan: ComparisonPlan) -> dict[Arm, str]:
    named = {whole(plan, name, seed): name for name in plan.methods for seed in plan.seeds}
    for seed in plan.seeds:
        named |= {arm: name for name, arm in controls(plan, seed).items()}
    return named | {arm: name for name, arm in [*by_cell(plan).items(), *baselines(plan).items()]}
