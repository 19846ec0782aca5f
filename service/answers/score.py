"""Scores of several models, compared document by document."""

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from evaluators.base import Candidate, Evaluator
from evaluators.cache import ScoreCache
from evaluators.cached import CachedEvaluator
from evaluators.conditions import DTYPES, PROVENANCE, without
from evaluators.mended import mended_identity
from evaluators.scores.aggregates import alike
from evaluators.scores.intervals import PairedDifference, paired_difference
from evaluators.scores.score import Score
from evaluators.scores.splits import SPLITS, Split
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.folder_files import find_file, read_json
from kinship.checkpoints.frame import FRAME_FILES
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.references import short_names
from kinship.errors import CacheError, IncomparableScores, InvalidConfig, KinshipError
from merging.output.folder import BESIDE_NAMES
from service.answers.base import Answer, Part, named
from service.answers.error import Error
from service.answers.scores import Difference, TaskScore


class MeasuredTask(TaskScore):
    """The score on one task, and of what kind it is."""

    metric: str
    """Of one document; of what is better lower the sign is turned, and ``negative`` in its name."""
    higher_is_better: Literal[True] = True
    """Of every metric."""


class SplitScores(Part):
    """The scores on one split."""

    value: float | None
    """The mean of the tasks; null where their metrics are unlike."""
    stderr: float | None
    """Its standard error; null where it has none."""
    complete: bool
    """False for an estimate from some of the documents."""
    documents: int
    """How many were scored, over all tasks."""
    tasks: dict[str, MeasuredTask]
    """By name."""


class ModelScores(Part):
    """What was found of one model."""

    model: str
    """Its reference, as given."""
    error: Error | None
    """In place of scores, where it could not be scored."""
    conditions: dict[str, str]
    """What the scores were made with: versions, device, dtype, batch size, seed."""
    splits: dict[Split, SplitScores]
    """Scores by split; no ``held_out`` where nothing is held out."""
    versus_first: dict[Split, Difference]
    """By how much its mean is better than the first model's; empty without a mean, or under other conditions."""
    versus_first_by_task: dict[Split, dict[str, Difference]]
    """The same by task; empty where the two were not run under the same conditions."""


class Scores(Answer):
    """Scores of models on tasks."""

    schema_: Literal["kinship.score/3"] = named("kinship.score/3")
    settings: dict[str, JsonValue]
    """The ``evaluate`` settings in full."""
    models: list[ModelScores]
    """In the order asked for."""


Watch = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass
class _Scored:
    """What was found of one model; ``error`` in place of scores where it could not be scored.

    ``metrics``: by task, higher is better. ``versus_first``: of the tasks' mean, empty where that says nothing.
    """

    model: str
    conditions: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    scores: dict[Split, Score] = field(default_factory=dict)
    versus_first: dict[Split, PairedDifference] = field(default_factory=dict)
    versus_first_by_task: dict[Split, dict[str, PairedDifference]] = field(default_factory=dict)
    error: KinshipError | None = None

    @property
    def mean(self) -> bool:
        """Whether the mean of the tasks says anything: their metrics are alike."""
        return alike(self.metrics.values())

    def told(self) -> ModelScores:
        """The same as an answer has it."""
        return ModelScores.model_validate(
            {
                "model": self.model,
                "error": Error.of(self.error) if self.error else None,
                "conditions": dict(self.conditions),
                "splits": {split: self._told(score) for split, score in self.scores.items()},
                "versus_first": {split: gain.to_dict() for split, gain in self.versus_first.items()},
                "versus_first_by_task": {
                    split: {task: gain.to_dict() for task, gain in gains.items()}
                    for split, gains in self.versus_first_by_task.items()
                },
            }
        )

    def _told(self, score: Score) -> dict[str, Any]:
        """A score with its tasks' metrics; without a mean where that says nothing."""
        facts = score.to_dict()
        for task, entry in facts["tasks"].items():
            entry |= {"metric": self.metrics[task], "higher_is_better": True}
        return facts if self.mean else facts | {"value": None, "stderr": None}


def score_models(
    models: Sequence[str],
    settings: EvaluateSettings,
    root: Path,
    cache: ScoreCache | None = None,
    watch: Watch = lambda label: nullcontext(lambda done, total: None),
) -> Scores:
    """Score each of ``models`` on both splits, or the one where nothing is held out.

    One that fails costs only itself, unless it is the only one, or the settings are at fault. Models that differ in
    nothing but their weights share one evaluator. ``watch`` is given a label and yields what is told of (documents
    done, documents in all). Paths in ``settings`` count from ``root``. Raises `CacheError`, what `make_evaluator`
    raises for the settings, and what a single model fails by.
    """
    from evaluators.make import make_evaluator

    # A live model has the dtype of the settings, a written one that of its config.
    ignored = PROVENANCE if settings.written else PROVENANCE | DTYPES
    found: list[_Scored] = []
    evaluator: Evaluator | None = None
    last: dict[str, object] = {}
    with ExitStack() as stack:
        opened = [_opened(model, stack) for model in models]
        for name, model, checkpoint in zip(short_names(models), models, opened, strict=True):
            try:
                if isinstance(checkpoint, KinshipError):
                    raise checkpoint
                this = frame(checkpoint, ignored)
                if evaluator is None or this != last:
                    evaluator, last = make_evaluator(settings, checkpoint, root), this
                scorer = CachedEvaluator(evaluator, cache)
                metrics = {task.name: task.metric for task in evaluator.tasks}
                one = _Scored(checkpoint.id, dict(evaluator.conditions), metrics)
                for split in scorer.splits:
                    with watch(f"{name}, {split.replace('_', '-')}") as progress:
                        one.scores[split] = scorer.score(_candidate(checkpoint), split, progress)
            except KinshipError as error:
                if len(models) == 1 or _of_settings(error, found):
                    raise
                one = _Scored(model, error=error)
            found.append(one)
    for one in found[1:]:
        _compare_with(found[0], one)
    return Scores(settings=settings.model_dump(mode="json"), models=[one.told() for one in found])


def _opened(model: str, stack: ExitStack) -> Checkpoint | KinshipError:
    try:
        return stack.enter_context(open_checkpoint(model))
    except KinshipError as error:
        return error


def _of_settings(error: KinshipError, found: Sequence[_Scored]) -> bool:
    """Whether ``error`` is no model's: of the cache, or of settings, which fail each model alike."""
    told = [str(one.error) for one in found]
    return isinstance(error, CacheError) or (isinstance(error, InvalidConfig) and str(error) in told)


def frame(checkpoint: Checkpoint, ignored: Set[str] = PROVENANCE) -> dict[str, object]:
    """What a model is run with beside its weights: equal ones can share a live model, and their scores compare.

    ``ignored``: keys of config files that do not count.
    """
    content: dict[str, object] = {}
    folder = checkpoint.path
    for name in sorted(
        {file.name for pattern in ("config.json", *FRAME_FILES, *BESIDE_NAMES) for file in folder.glob(pattern)}
    ):
        file = find_file(checkpoint.path, name)
        if file is None:
            continue
        content[name] = file.read_bytes()
        if name.endswith("config.json"):
            content[name] = without(checkpoint.config if name == "config.json" else read_json(file), ignored)
    return content


def _candidate(checkpoint: Checkpoint) -> Candidate:
    from merging.offspring.weights import stream_of  # numba, which readers of scores do without

    return Candidate(
        checkpoint.id,
        mended_identity(checkpoint),
        lambda: stream_of(checkpoint),
        checkpoint.require_unchanged,
        checkpoint,
    )


def _compare_with(first: _Scored, one: _Scored) -> None:
    """Differences on the same documents; none where the tasks are not the same ones, which the result then says."""
    for split in SPLITS:
        if split in first.scores and split in one.scores:
            pair = one.scores[split], first.scores[split]
            try:
                if one.mean:
                    one.versus_first[split] = paired_difference(*pair)
                one.versus_first_by_task[split] = {
                    mine.task: paired_difference(Score((mine,)), Score((theirs,)))
                    for mine, theirs in zip(*(score.tasks for score in pair), strict=True)
                }
            except IncomparableScores:
                return
