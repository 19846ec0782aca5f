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
from evaluators.scores.score import Estimate, as_dict
from evaluators.scores.splits import SPLITS
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.references import short_names
from kinship.errors import InvalidConfig
from kinship.output import output_file, require_writable
from kinship.validation import invalid, read_yaml
from service.answers.score import Scored, score_models
from service.console import console, notes, print_json, progress_bar

SCHEMA = "kinship.score/2"
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
                "splits": {split: score.to_dict() for split, score in one.scores.items()},
                "versus_first": {split: gain.to_dict() for split, gain in one.versus_first.items()},
            }
            for one in found
        ],
    }


def rows(found: Sequence[Scored]) -> Iterator[list[object]]:
    """The CSV: a row for each model, split and task, and for the mean of the tasks."""
    gains = ("difference_to_first", "difference_stderr", "low", "high")
    yield ["model", "split", "task", "documents", "value", "stderr", *gains]
    for one in found:
        for split, score in one.scores.items():
            for task in score.tasks:
                estimate = as_dict(task.estimate)
                yield [one.model, split, task.task, len(task.documents), estimate["value"], estimate["stderr"]] + [
                    ""
                ] * 4
            estimate, gain = as_dict(score.estimate), one.versus_first.get(split)
            facts = gain.to_dict() if gain else {}
            mean = [one.model, split, "mean of tasks", score.count, estimate["value"], estimate["stderr"]]
            yield mean + [facts.get(key, "") for key in ("value", "stderr", "low", "high")]


def print_tables(found: Sequence[Scored]) -> None:
    """A table of one model's tasks, or a table a split with a row for each model."""
    from rich.table import Column, Table

    names = short_names([one.model for one in found])
    if len(found) == 1:
        (one,) = found
        table = Table(Column("task", overflow="fold"), title=f"Scores of {one.model}", title_justify="left")
        for split in SPLITS:
            table.add_column(f"{split.replace('_', '-')} (n)", justify="right")
        for tasks in zip(*(one.scores[split].tasks for split in SPLITS), strict=True):
            table.add_row(tasks[0].task, *(_cell(task.estimate, len(task.documents)) for task in tasks))
        table.add_section()
        table.add_row(
            "mean of tasks", *(_cell(one.scores[split].estimate, one.scores[split].count) for split in SPLITS)
        )
        console().print(table)
        return
    names_of_tasks = next(([task.task for task in one.scores["search"].tasks] for one in found if one.scores), [])
    for split in SPLITS:
        count = next((f", {one.scores[split].count:,} documents" for one in found if one.scores), "")
        table = Table("model", title=f"{split.replace('_', '-').capitalize()} split{count}", title_justify="left")
        for header in (*names_of_tasks, "mean of tasks", f"less {names[0]} (95 %)"):
            table.add_column(header, justify="right")
        for name, one in zip(names, found, strict=True):
            if one.error is not None:
                table.add_row(name, "failed")
                continue
            score, gain = one.scores[split], one.versus_first.get(split)
            cells = [_cell(task.estimate) for task in score.tasks]
            difference = f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]" if gain else ""
            table.add_row(name, *cells, _cell(score.estimate), difference.replace("[", r"\["))
        console().print(table)
    for name, one in zip(names, found, strict=True):
        if one.error is not None:
            notes().print(f"{name}: {one.error.message}", markup=False, soft_wrap=True)
        elif one is not found[0] and not one.versus_first and found[0].scores:
            notes().print(f"{name} was run under other conditions than {names[0]}: the two are not compared.")


def _cell(estimate: Estimate, count: int | None = None) -> str:
    return f"{estimate.value:.4f} ± {estimate.stderr:.4f}" + (f" ({count})" if count is not None else "")
