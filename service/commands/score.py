"""`kinship score`."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from evaluators.cache import open_cache
from evaluators.scores.intervals import Comparison
from evaluators.scores.score import Estimate, Score, as_dict
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.references import short_names
from kinship.errors import InvalidConfig
from kinship.output import output_file, require_writable
from kinship.validation import invalid, read_yaml
from service.answers.score import Scored, score_models
from service.console import console, notes, print_json, progress_bar

SCHEMA = "kinship.score/3"
FORMATS = (".json", ".csv")


def run(
    models: Sequence[str],
    config: Path | None,
    options: Mapping[str, Any],
    assignments: Sequence[str],
    cache: Path | None,
    outs: Sequence[Path],
    *,
    as_json: bool,
    force: bool,
) -> bool:
    """Score models on both splits, print and write the result; returns whether all could be scored."""
    settings = read_settings(config, options, assignments)
    for out in outs:
        if out.suffix not in FORMATS:
            raise InvalidConfig(f"{out} cannot be written: unknown ending.", hint=f"Endings: {', '.join(FORMATS)}.")
        require_writable(out, force=force)
    root = config.absolute().parent if config else Path.cwd()
    try:
        found = score_models(models, settings, root, open_cache(cache), documents_bar)
    except KeyboardInterrupt:
        notes().print("\nStopped. Documents done so far are in the score cache, if there is one.")
        raise
    content = describe(found, settings)
    for out in outs:
        with output_file(out, force=force) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            if out.suffix == ".json":
                file.write(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
            else:
                csv.writer(file).writerows(rows(found))
    if as_json:
        print_json(content)
    else:
        print_tables(found)
    return all(one.error is None for one in found)


def read_settings(config: Path | None, options: Mapping[str, Any], assignments: Sequence[str]) -> EvaluateSettings:
    """Settings from a YAML file (its ``evaluate`` part, where it has one), then ``options``, then KEY=VALUE.

    Options that are None say nothing. Raises `InvalidConfig`.
    """
    content: Any = read_yaml(config, "settings file") if config else {}
    if isinstance(content, dict):
        content = content.get("evaluate", content)
    if not isinstance(content, dict):
        raise InvalidConfig(f"{config} holds no mapping.", hint="Give the keys of a run file's evaluate part.")
    content = content | {key: value for key, value in options.items() if value is not None}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise InvalidConfig(f"--set {assignment} says no value.", hint="Write --set KEY=VALUE.")
        try:
            content[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InvalidConfig(f"--set {assignment}: the value is not valid YAML.") from None
    try:
        return EvaluateSettings.model_validate(content)
    except ValidationError as error:
        raise invalid(error, str(config) if config else "the command", EvaluateSettings) from None


@contextmanager
def documents_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of documents with their rate and the time left; nothing where standard error is no terminal."""
    with progress_bar() as bar:
        task = bar.add_task(label, total=None, amount="")

        def update(done: int, total: int) -> None:
            speed = bar.tasks[task].finished_speed or bar.tasks[task].speed
            rate = f", {speed:,.1f}/s" if speed else ""
            bar.update(task, completed=done, total=total, amount=f"{done:,} of {total:,} documents{rate}")

        yield update


def describe(found: Sequence[Scored], settings: EvaluateSettings) -> dict[str, Any]:
    """The ``kinship.score`` object."""
    return {
        "schema": SCHEMA,
        "settings": settings.model_dump(mode="json"),
        "models": [
            {
                "model": one.model,
                "error": one.error.as_dict() if one.error else None,
                "conditions": dict(one.conditions),
                "splits": {split: _split(score, one) for split, score in one.scores.items()},
                "versus_first": {split: gain.to_dict() for split, gain in one.versus_first.items()},
                "versus_first_by_task": {
                    split: {task: gain.to_dict() for task, gain in gains.items()}
                    for split, gains in one.versus_first_by_task.items()
                },
            }
            for one in found
        ],
    }


def _split(score: Score, one: Scored) -> dict[str, Any]:
    """A score with its tasks' metrics; without a mean where that says nothing."""
    facts = score.to_dict()
    for task, entry in facts["tasks"].items():
        entry |= {"metric": one.metrics[task], "higher_is_better": True}
    return facts if one.mean else facts | {"value": None, "stderr": None}


def rows(found: Sequence[Scored]) -> Iterator[list[object]]:
    """The CSV: a row for each model, split and task, and for the mean of the tasks where that says anything."""
    gains = ("difference_to_first", "difference_stderr", "low", "high")
    yield ["model", "split", "task", "metric", "higher_is_better", "documents", "value", "stderr", *gains]
    for one in found:
        for split, score in one.scores.items():
            by_task = one.versus_first_by_task.get(split, {})
            for task in score.tasks:
                numbers = _numbers(task.estimate, by_task.get(task.task))
                yield [one.model, split, task.task, one.metrics[task.task], True, len(task.documents), *numbers]
            if one.mean:
                numbers = _numbers(score.estimate, one.versus_first.get(split))
                yield [one.model, split, "mean of tasks", "", True, score.count, *numbers]


def _numbers(estimate: Estimate, gain: Comparison | None) -> list[object]:
    facts = gain.to_dict() if gain else {}
    return [*as_dict(estimate).values(), *(facts.get(key, "") for key in ("value", "stderr", "low", "high"))]


def print_tables(found: Sequence[Scored]) -> None:
    """A table of one model's tasks, or a table a split with a row for each model. Of all metrics higher is better."""
    from rich.table import Column, Table

    names = short_names([one.model for one in found])
    if len(found) == 1:
        (one,) = found
        table = Table(
            Column("task", overflow="fold"), title=f"Scores of {one.model}; higher is better", title_justify="left"
        )
        table.add_column("metric", overflow="fold")
        for split in one.scores:
            label = split.replace("_", "-") if len(one.scores) > 1 else "all"
            table.add_column(f"{label} (n)", justify="right")
        for tasks in zip(*(score.tasks for score in one.scores.values()), strict=True):
            name = tasks[0].task
            table.add_row(name, one.metrics[name], *(_cell(task.estimate, len(task.documents)) for task in tasks))
        if one.mean:
            table.add_section()
            table.add_row("mean of tasks", "", *(_cell(score.estimate, score.count) for score in one.scores.values()))
        console().print(table)
        return
    some = next((one for one in found if one.scores), Scored(""))
    for split in some.scores:
        place = f"{split.replace('_', '-').capitalize()} split" if len(some.scores) > 1 else "All documents"
        title = f"{place}, {some.scores[split].count:,} documents" if len(some.scores) > 1 else place
        table = Table("model", title=f"{title}; higher is better", title_justify="left")
        for task, metric in some.metrics.items():
            table.add_column(f"{task}\n{metric}", justify="right")
        for header in ("mean of tasks", f"less {names[0]} (95 %)") if some.mean else ():
            table.add_column(header, justify="right")
        for name, one in zip(names, found, strict=True):
            if one.error is not None:
                table.add_row(name, "failed")
                continue
            score, by_task = one.scores[split], {} if one.mean else one.versus_first_by_task.get(split, {})
            cells = [_cell(task.estimate) + _difference(by_task.get(task.task), "\n") for task in score.tasks]
            if one.mean:
                cells += [_cell(score.estimate), _difference(one.versus_first.get(split))]
            table.add_row(name, *cells)
        console().print(table)
    if not some.mean:
        notes().print(f"The metrics are unlike: no mean of them. Below each score: less {names[0]} (95 %).")
    for name, one in zip(names, found, strict=True):
        if one.error is not None:
            notes().print(f"{name}: {one.error.message}", markup=False, soft_wrap=True)
        elif one is not found[0] and not one.versus_first_by_task and found[0].scores:
            notes().print(f"{name} was run under other conditions than {names[0]}: the two are not compared.")


def _difference(gain: Comparison | None, before: str = "") -> str:
    return f"{before}{gain.value:+.4f} \\[{gain.low:+.4f}, {gain.high:+.4f}]" if gain else ""


def _cell(estimate: Estimate, count: int | None = None) -> str:
    return f"{estimate.value:.4f} ± {estimate.stderr:.4f}" + (f" ({count})" if count is not None else "")
