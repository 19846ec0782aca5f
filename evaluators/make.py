"""From settings to an evaluator: one of each kind of task they name, or several behind one face."""

from collections.abc import Sequence
from pathlib import Path

from evaluators.base import Candidate, Documents, Evaluator, Task
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import InvalidConfig, UnsupportedCheckpoint, foreign
from merging.output.folder import has_beside


def make_evaluator(
    settings: EvaluateSettings, template: Checkpoint, root: Path | None = None, *, beside: bool = False
) -> Evaluator:
    """The evaluator of everything that ``settings`` name.

    ``template`` (a model folder) gives architecture and tokenizer; relative paths count from ``root``. What runs on a
    model in memory shares one, so that a candidate's weights are loaded once. ``beside``: candidates may have something
    beside their weights though the template has not. Cost: seconds, ten where lm-eval's own
    tasks are named. Raises `InvalidConfig`, `ReferenceNotFound` or `UnsupportedCheckpoint`.
    """
    from evaluators.function import FunctionEvaluator
    from evaluators.harness import Harness
    from evaluators.live import LiveModel
    from evaluators.mended import Mended
    from evaluators.perplexity import Perplexity
    from evaluators.written import WrittenHarness

    parts: list[Evaluator] = []
    in_memory = bool(settings.perplexity or settings.functions or (settings.tasks and not settings.written))
    hint = "See whether transformers loads it, and whether lm-eval runs the tasks on it."
    with foreign(UnsupportedCheckpoint, f"{template.id} cannot be made ready to be scored", hint=hint):
        live = LiveModel(template, settings.device, settings.dtype, settings.text_only) if in_memory else None
        if settings.tasks and settings.written:
            parts.append(WrittenHarness(settings, template, root))
        elif settings.tasks:
            parts.append(Harness(settings, template, root, live))
        if settings.perplexity:
            parts.append(Perplexity(settings, template, root, live))
        if settings.functions:
            parts.append(FunctionEvaluator(settings, template, root, live))
        made = parts[0] if len(parts) == 1 else Combined(parts)
        if settings.surgery or beside or has_beside(template.path):
            return Mended(made, settings, template, root, live)
        return made


class Combined:
    """An `Evaluator` of the tasks of all ``evaluators``, in their order.

    Raises `InvalidConfig` where two tasks share a name.
    """

    def __init__(self, evaluators: Sequence[Evaluator]) -> None:
        self._evaluators = evaluators
        self.tasks: list[Task] = [task for evaluator in evaluators for task in evaluator.tasks]
        self.conditions: dict[str, str] = {}
        for evaluator in evaluators:
            self.conditions |= evaluator.conditions
        _require_names([task.name for task in self.tasks])

    def run(self, candidate: Candidate, documents: Documents) -> dict[str, dict[int, float]]:
        """See `Evaluator.run`."""
        results: dict[str, dict[int, float]] = {}
        for evaluator in self._evaluators:
            own = {task.name: documents[task.name] for task in evaluator.tasks if documents.get(task.name)}
            if own:
                results |= evaluator.run(candidate, own)
        return results


def require_acknowledged(settings: EvaluateSettings, tasks: Sequence[Task]) -> None:
    """Raise `InvalidConfig` where a search would select on public benchmarks and nobody has said that this is meant.

    ``tasks``: those of the evaluator. To be asked before a search; scoring alone selects nothing.
    """
    public = [task.name for task in tasks if task.public]
    if public and settings.public_benchmarks != "acknowledged":
        raise InvalidConfig(
            f"The search would select models on public benchmarks: {', '.join(public)}. The winner's scores on them "
            "would then flatter it, held-out documents or not, since it was chosen among many by documents like them.",
            hint="Say `public_benchmarks: acknowledged` in evaluate, or search on data of your own "
            "(evaluate.task_path) and keep the benchmarks for the end.",
        )


def _require_names(names: Sequence[str]) -> None:
    """Raise `InvalidConfig` where a name comes twice."""
    for name in names:
        if names.count(name) > 1:
            raise InvalidConfig(f"Two tasks are called {name!r}.", hint="Give one of them another name.")
