"""`kinship score`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinship.errors import InvalidConfig
from service.commands.options import Force, Json, ScoreCacheFile, VerifyInputs
from service.console import console, notes, print_json, progress_bar, tell

if TYPE_CHECKING:
    from evaluators.settings import EvaluateSettings
    from service.answers.score import ModelScores, Scores, SplitScores
    from service.answers.scores import Difference, Estimate

FORMATS = (".json", ".csv")


def score(
    models: Annotated[list[str], typer.Argument(help="Model folders, Hub ids, or BASE+ADAPTER.", show_default=False)],
    tasks: Annotated[str | None, typer.Option(help="lm-eval tasks, separated by commas.", show_default=False)] = None,
    task_path: Annotated[Path | None, typer.Option(help="Folder with task YAML files of your own.")] = None,
    metric: Annotated[str | None, typer.Option(help="Metric of every task; default: each task's first.")] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Examples before each question.")] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="At most this many documents a task and split.")] = None,
    batch_size: Annotated[str | None, typer.Option(help="Documents in a forward pass, or auto.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with these and all further settings.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, in YAML; may be repeated.")
    ] = None,
    cache: ScoreCacheFile = None,
    out: Annotated[list[Path] | None, typer.Option(help="Also write .csv or .json; may be repeated.")] = None,
    verify_inputs: VerifyInputs = False,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Score models on tasks, with standard errors.

    Search and held-out documents are scored apart. Several models are compared with the first, document by document.
    Exit code 1 where one could not be scored.
    """
    from evaluators.cache import open_cache
    from kinship.checkpoints.references import local_places
    from kinship.output import require_writable
    from service.answers.score import score_models

    options = {
        "tasks": [name.strip() for name in tasks.split(",") if name.strip()] if tasks else None,
        "task_path": str(task_path.absolute()) if task_path else None,
        "metric": metric,
        "num_fewshot": num_fewshot,
        "limit": limit,
        "batch_size": int(batch_size) if batch_size and batch_size.isdigit() else batch_size,
        "device": device,
    }
    settings = read_settings(config, options, assignments or [])
    inputs = local_places([*models, *filter(None, [config, task_path])])
    for path in out or []:
        if path.suffix not in FORMATS:
            raise InvalidConfig(f"{path} cannot be written: unknown ending.", hint=f"Endings: {', '.join(FORMATS)}.")
        require_writable(path, force=force, inputs=inputs)
    root = config.absolute().parent if config else Path.cwd()
    try:
        answer = score_models(models, settings, root, open_cache(cache), documents_bar)
    except KeyboardInterrupt:
        notes().print()
        notes().print("Stopped. Documents done so far are in the score cache, if there is one.")
        raise
    for path in out or []:
        save_scores(answer, path, force=force)
    print_json(answer) if as_json else print_scores(answer)
    if any(one.error for one in answer.models):
        raise typer.Exit(1)


def read_settings(config: Path | None, options: Mapping[str, Any], assignments: Sequence[str]) -> "EvaluateSettings":
    """Settings from a YAML file (its ``evaluate`` part, where it has one), then ``options``, then KEY=VALUE.

    Options that are None say nothing. Raises `InvalidConfig`.
    """
    from evaluators.settings import EvaluateSettings
    from kinship.safe_yaml import InvalidYaml, load_yaml
    from kinship.validation import checked, read_yaml

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
            content[key.strip()] = load_yaml(value)
        except InvalidYaml as error:
            raise InvalidConfig(f"--set {assignment}: the value is not valid YAML: {error}.") from None
    source = str(config) if config else "the command"
    return checked(EvaluateSettings, content, source)


@contextmanager
def documents_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of documents with their rate and the time left."""
    with progress_bar() as bar:
        task = bar.add_task(label, total=None, amount="")

        def update(done: int, total: int) -> None:
            tell(label, done, total, "documents")
            speed = bar.tasks[task].finished_speed or bar.tasks[task].speed
            rate = f", {speed:,.1f}/s" if speed else ""
            bar.update(task, completed=done, total=total, amount=f"{done:,} of {total:,} documents{rate}")

        yield update


def save_scores(answer: "Scores", path: Path, *, force: bool = False) -> None:
    """Write the answer as JSON, or as CSV: see `rows`."""
    from kinship.output import output_file
    from kinship.outside import write_csv

    with output_file(path, force=force) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".json":
            file.write(answer.to_json() + "\n")
        else:
            write_csv(file, rows(answer))


def rows(answer: "Scores") -> Iterator[list[object]]:
    """The CSV: a row for each model, split and task, and for the mean of the tasks where that says anything."""
    gains = ("difference_to_first", "difference_stderr", "low", "high")
    yield ["model", "split", "task", "metric", "higher_is_better", "documents", "value", "stderr", *gains]
    for one in answer.models:
        for split, score in one.splits.items():
            by_task = one.versus_first_by_task.get(split, {})
            for name, task in score.tasks.items():
                numbers = _numbers(task, by_task.get(name))
                yield [one.model, split, name, task.metric, task.higher_is_better, task.documents, *numbers]
            if score.value is not None:
                numbers = _numbers(score, one.versus_first.get(split))
                yield [one.model, split, "mean of tasks", "", True, score.documents, *numbers]


def _numbers(estimate: "Estimate | SplitScores", gain: "Difference | None") -> list[object]:
    facts = (gain.value, gain.stderr, gain.low, gain.high) if gain else [""] * 4
    return [estimate.value, estimate.stderr, *facts]


def print_scores(answer: "Scores") -> None:
    """A table of one model's tasks, or a table a split with a row for each model. Of all metrics higher is better."""
    from rich.table import Table

    from kinship.checkpoints.references import short_names
    from service.terminal import lines

    found = answer.models
    names = short_names([one.model for one in found])
    if len(found) == 1:
        _print_one(found[0])
        return
    some = next((one.splits for one in found if one.splits), {})
    unlike = any(scores.value is None for scores in some.values())
    for split, scores in some.items():
        place = f"{split.replace('_', '-').capitalize()} split" if len(some) > 1 else "All documents"
        title = f"{place}, {scores.documents:,} documents" if len(some) > 1 else place
        table = Table("model", title=f"{title}; higher is better", title_justify="left")
        for name, task in scores.tasks.items():
            table.add_column(lines(name, task.metric), justify="right")
        for header in () if unlike else ("mean of tasks", f"less {names[0]} (95 %)"):
            table.add_column(header, justify="right")
        for name, one in zip(names, found, strict=True):
            if one.error is not None:
                table.add_row(name, "failed")
                continue
            score, by_task = one.splits[split], one.versus_first_by_task.get(split, {}) if unlike else {}
            cells = [
                lines(_cell(task), *([_difference(gain)] if (gain := by_task.get(key)) else []))
                for key, task in score.tasks.items()
            ]
            means = [] if unlike else [_cell(score), _difference(one.versus_first.get(split))]
            table.add_row(name, *cells, *means)
        console().print(table)
    if unlike:
        notes().print(f"The metrics are unlike: no mean of them. Below each score: less {names[0]} (95 %).")
    for name, one in zip(names, found, strict=True):
        if one.error is not None:
            notes().print(f"{name}: {one.error.message}", soft_wrap=True)
        elif one is not found[0] and not one.versus_first_by_task and found[0].splits:
            notes().print(f"{name} was run under other conditions than {names[0]}: the two are not compared.")


def _print_one(one: "ModelScores") -> None:
    from rich.table import Column, Table

    title = f"Scores of {one.model}; higher is better"
    table = Table(Column("task", overflow="fold"), Column("metric", overflow="fold"), title=title, title_justify="left")
    for split in one.splits:
        label = split.replace("_", "-") if len(one.splits) > 1 else "all"
        table.add_column(f"{label} (n)", justify="right")
    for name, task in one.splits["search"].tasks.items():
        tasks = (score.tasks[name] for score in one.splits.values())
        table.add_row(name, task.metric, *(_cell(each, each.documents) for each in tasks))
    if one.splits["search"].value is not None:
        table.add_section()
        table.add_row("mean of tasks", "", *(_cell(score, score.documents) for score in one.splits.values()))
    console().print(table)


def _difference(gain: "Difference | None") -> str:
    return "" if gain is None else f"{_signed(gain.value)} [{_signed(gain.low)}, {_signed(gain.high)}]"


def _signed(value: float | None) -> str:
    return "+nan" if value is None else f"{value:+.4f}"


def _cell(estimate: "Estimate | SplitScores", count: int | None = None) -> str:
    error = "nan" if estimate.stderr is None else f"{estimate.stderr:.4f}"
    return f"{estimate.value:.4f} ± {error}" + (f" ({count})" if count is not None else "")
