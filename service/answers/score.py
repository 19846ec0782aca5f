"""Scores of several models, compared document by document."""

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from evaluators.base import Candidate, Evaluator
from evaluators.cache import ScoreCache
from evaluators.live import DTYPES, PROVENANCE, without
from evaluators.scorer import Scorer
from evaluators.scores.aggregates import alike
from evaluators.scores.intervals import Comparison, compare
from evaluators.scores.score import Score
from evaluators.scores.splits import SPLITS, Split
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.folder_files import find_file, read_json
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.references import short_names
from kinship.errors import (
    EvaluationFailed,
    IncomparableScores,
    KinshipError,
    MismatchedModels,
    NonFiniteWeights,
    UnsupportedCheckpoint,
)

# What decides, beside the weights, how a model runs.
FRAME = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
    "spiece.model", "sentencepiece.bpe.model", "vocab.txt",
)  # fmt: skip

Watch = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass
class Scored:
    """What was found of one model; ``error`` in place of scores where it could not be scored.

    ``metrics``: by task, higher is better. ``versus_first``: of the tasks' mean, empty where that says nothing.
    """

    model: str
    conditions: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    scores: dict[Split, Score] = field(default_factory=dict)
    versus_first: dict[Split, Comparison] = field(default_factory=dict)
    versus_first_by_task: dict[Split, dict[str, Comparison]] = field(default_factory=dict)
    error: KinshipError | None = None

    @property
    def mean(self) -> bool:
        """Whether the mean of the tasks says anything: their metrics are alike."""
        return alike(self.metrics.values())


def score_models(
    models: Sequence[str], settings: EvaluateSettings, root: Path, cache: ScoreCache | None, watch: Watch
) -> list[Scored]:
    """Score each of ``models`` on both splits, or the one where nothing is held out.

    One that fails costs only itself, unless it is the only one. Models that differ in nothing but their weights share
    one evaluator. ``watch`` is given a label and yields what is told of (documents done, documents in all). Paths in
    ``settings`` count from ``root``.
    """
    from evaluators.make import make_evaluator

    # A live model has the dtype of the settings, a written one that of its config.
    ignored = PROVENANCE if settings.written else PROVENANCE | DTYPES
    found: list[Scored] = []
    evaluator: Evaluator | None = None
    last: dict[str, object] = {}
    with ExitStack() as stack:
        checkpoints = [stack.enter_context(open_checkpoint(model)) for model in models]
        for name, checkpoint in zip(short_names(models), checkpoints, strict=True):
            try:
                this = frame(checkpoint, ignored)
                if evaluator is None or this != last:
                    evaluator, last = make_evaluator(settings, checkpoint, root), this
                scorer = Scorer(evaluator, cache)
                metrics = {task.name: task.metric for task in evaluator.tasks}
                one = Scored(checkpoint.id, dict(evaluator.conditions), metrics)
                for split in scorer.splits:
                    with watch(f"{name}, {split.replace('_', '-')}") as progress:
                        one.scores[split] = scorer.score(_candidate(checkpoint), split, progress)
            except (EvaluationFailed, NonFiniteWeights, MismatchedModels, UnsupportedCheckpoint) as error:
                if len(models) == 1:
                    raise
                one = Scored(checkpoint.id, error=error)
            found.append(one)
    for one in found[1:]:
        _compare_with(found[0], one)
    return found


def frame(checkpoint: Checkpoint, ignored: Set[str] = PROVENANCE) -> dict[str, object]:
    """What a model is run with beside its weights: equal ones can share a live model, and their scores compare.

    ``ignored``: keys of config files that do not count.
    """
    content: dict[str, object] = {}
    for name in FRAME if checkpoint.path.is_dir() else ():
        file = find_file(checkpoint.path, name)
        if file is None:
            continue
        content[name] = file.read_bytes()
        if name.endswith("config.json"):
            content[name] = without(read_json(file), ignored)
    return content


def _candidate(checkpoint: Checkpoint) -> Candidate:
    return Candidate(
        checkpoint.id, checkpoint.digest, lambda: ((name, checkpoint.tensor(name)) for name in checkpoint.tensors)
    )


def _compare_with(first: Scored, one: Scored) -> None:
    """Differences on the same documents; none where the tasks are not the same ones, which the result then says."""
    for split in SPLITS:
        if split in first.scores and split in one.scores:
            pair = one.scores[split], first.scores[split]
            try:
                if one.mean:
                    one.versus_first[split] = compare(*pair)
                one.versus_first_by_task[split] = {
                    mine.task: compare(Score((mine,)), Score((theirs,)))
                    for mine, theirs in zip(*(score.tasks for score in pair), strict=True)
                }
            except IncomparableScores:
                return
