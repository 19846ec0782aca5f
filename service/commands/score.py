"""`kinship score`."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evaluators.base import Candidate
from evaluators.cache import ScoreCache, default_path
from evaluators.scorer import Scorer
from evaluators.scores import Estimate
from evaluators.settings import EvaluateSettings
from evaluators.splits import SPLITS
from kinship.opening import open_checkpoint
from kinship.validation import invalid
from service.console import console, notes, print_json


def run(model: str, options: dict[str, Any], cache: Path | None, *, as_json: bool) -> None:
    """Score a model on both splits and print the result."""
    try:
        settings = EvaluateSettings.model_validate(options)
    except ValidationError as error:
        raise invalid(error, "the command", EvaluateSettings) from None
    with open_checkpoint(model) as checkpoint, notes().status(f"Scoring {model}"):
        from evaluators.harness import Harness

        scorer = Scorer(Harness(settings, checkpoint), ScoreCache(cache or default_path()))
        candidate = Candidate(
            model, checkpoint.digest, lambda: ((name, checkpoint.tensor(name)) for name in checkpoint.tensors)
        )
        scores = {split: scorer.score(candidate, split) for split in SPLITS}
    if as_json:
        content = {split: score.to_dict() for split, score in scores.items()}
        print_json({"schema": "kinship.score/1", "model": model, "splits": content})
        return
    from rich.table import Table

    table = Table(title=f"Scores of {model}", title_justify="left")
    for header in ("task", *(f"{split.replace('_', '-')} (n)" for split in SPLITS)):
        table.add_column(header, justify="left" if header == "task" else "right")
    for tasks in zip(*(scores[split].tasks for split in SPLITS), strict=True):
        table.add_row(tasks[0].task, *(_cell(task.estimate, len(task.documents)) for task in tasks))
    table.add_section()
    table.add_row("mean of tasks", *(_cell(scores[split].estimate, scores[split].count) for split in SPLITS))
    console().print(table)


def _cell(estimate: Estimate, count: int) -> str:
    return f"{estimate.value:.4f} ± {estimate.stderr:.4f} ({count})"
