"""`kinship runs`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.options import Force, Json
from service.console import console, notes, print_json, write_json

if TYPE_CHECKING:
    from kinship.errors import LedgerError
    from service.answers.comparison import ComparedRuns, Incomparable
    from service.answers.export import RunExport
    from service.answers.runs import Failures, Runs
    from service.answers.scores import Difference, Estimate, SplitScore

runs = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look into the ledgers of runs.")

RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="Folder of a run; in a database, URL#NAME.", show_default=False)
]

MOST_ROWS = 100
MOST_NAMED = 20  # of a Pareto front


@runs.command("list")
def list_all(
    where: Annotated[str, typer.Argument(help="A folder, with all below; or the URL of a database.")] = ".",
    as_json: Json = False,
) -> None:
    """The runs in and below a folder, or in a database."""
    from service.answers.runs import list_runs

    def tell(folder: Path, error: "LedgerError") -> None:
        notes().print(f"{folder}: {error.message}", soft_wrap=True)

    answer = list_runs(where, tell)
    print_json(answer) if as_json else print_runs(answer, where)


@runs.command("show")
def show(
    run: RunName,
    failures: Annotated[bool, typer.Option("--failures", help="What failed, with tracebacks, instead.")] = False,
    as_json: Json = False,
) -> None:
    """The individuals of a run, best first."""
    if failures:
        from service.answers.runs import failures_of

        failed = failures_of(run)
        print_json(failed) if as_json else print_failures(failed)
        return
    from service.answers.export import export_of

    answer = export_of(run)
    print_json(answer) if as_json else print_individuals(answer, run)


@runs.command("export")
def export(
    run: RunName,
    full: Annotated[bool, typer.Option("--full", help="All that there is, for import: every document, too.")] = False,
) -> None:
    """Print the canonical export: equal runs give equal bytes."""
    from service.answers.export import archive_of, export_of

    write_json(archive_of(run).canonical() if full else export_of(run).canonical())


@runs.command("import")
def import_full(
    file: Annotated[Path, typer.Argument(metavar="FULL.json", help="What export --full printed.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder of the run, to be made.", show_default=False)],
    ledger: Annotated[
        str | None, typer.Option(metavar="URL#NAME", help="Put it into this Postgres database.", show_default=False)
    ] = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Rebuild a run from its full export."""
    from service.answers.runs import import_run

    def warn() -> None:
        notes().print(f"To go on with the run, put its children/ into {out}: their weights are not in the file.",
                      soft_wrap=True)  # fmt: skip

    answer = import_run(file, out, ledger, force=force, without_weights=warn)
    if as_json:
        print_json(answer)
    else:
        console().print(f"{answer.individuals:,} individuals are in {answer.ledger}.", soft_wrap=True)


@runs.command("verify")
def verify(run: RunName, as_json: Json = False) -> None:
    """Check a run: keys, genomes, scores against documents, and that it can be gone on with.

    Exit code 1 where something is wrong.
    """
    from service.answers.checks import check_run
    from service.commands.verify import print_checks

    answer = check_run(run)
    print_json(answer) if as_json else print_checks(answer.run, answer.checks, ok=answer.ok)
    if not answer.ok:
        raise typer.Exit(1)


@runs.command("compare")
def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Folders of runs, or URL#NAME.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Several runs side by side: what each found, at what cost, and the winners against the first run's winner.

    Winners are compared document by document, where both were scored on the same ones.
    """
    from service.answers.comparison import compare_runs

    answer = compare_runs(runs)
    print_json(answer) if as_json else print_comparison(answer)


def print_runs(answer: "Runs", where: str) -> None:
    """A table of the runs below ``where``."""
    from rich.table import Table

    table = Table()
    for header in ("run", "strategy", "founders", "offspring", "failed", "best", "score", "hours", "stopped"):
        table.add_column(
            header, justify="right" if header in {"founders", "offspring", "failed", "score", "hours"} else "left"
        )
    for run in answer.runs:
        name = run.folder if "://" in where else str(Path(run.folder).relative_to(where))
        counts = (str(count) for count in (run.founders, run.offspring, run.failed))
        score, hours = _number(run.score, "{:.4f}"), f"{run.hours:.2f}"
        table.add_row(name, run.strategy, *counts, run.best or "", score, hours, run.stopped or "not finished")
    console().print(table)
    if answer.runs:
        console().print("score: of the best, on the search split of the run's own tasks; higher is better.")


def print_individuals(answer: "RunExport", name: str) -> None:
    """A table of the individuals, best first, and what came of the run."""
    from rich.table import Table

    from service.answers.export import legend

    table = Table(title=f"Run in {name}", title_justify="left")
    for header in ("id", "parents", "role", "kinship", "gain", "search", "held-out"):
        table.add_column(header, justify="left" if header in {"id", "parents", "role"} else "right")
    people = sorted(answer.individuals, key=lambda person: person.place)
    for person in people[:MOST_ROWS]:
        table.add_row(
            person.id,
            " x ".join(person.parents),
            "failed" if person.error else f"= {person.twin}" if person.twin else person.role,
            _number(person.kinship_of_parents, "{:.3f}"),
            _number(person.merge_gain, "{:+.4f}"),
            *(_score(score) for score in (person.scores.get("search"), person.scores.get("held_out"))),
        )
    console().print(table)
    if len(people) > MOST_ROWS:
        console().print(f"{len(people) - MOST_ROWS:,} more: see `kinship runs export`.")
    if answer.pareto_front:
        front, more = ", ".join(answer.pareto_front[:MOST_NAMED]), len(answer.pareto_front[MOST_NAMED:])
        front += f" and {more} more" if more else ""
        console().print(f"Beaten by nobody on all tasks at once: {front}.", soft_wrap=True)
    metrics = {name: task.metric for name, task in answer.tasks.items()}
    console().print(legend(answer.metric, metrics), soft_wrap=True)
    guide = "" if answer.gain.r is None else "; offspring of one run are not independent, so take both as a guide"
    console().print(f"Kinship against gain: {answer.gain.words}{guide}.", soft_wrap=True)
    if answer.exploration:
        console().print(answer.exploration_told)
    console().print(f"{answer.verdict} Stopped because {answer.stopped or 'it is not finished'}.")


def print_failures(answer: "Failures") -> None:
    """What failed, with tracebacks."""
    from service.terminal import lines

    for failed in answer.failures:
        tries = f", tried {failed.attempts} times" if failed.attempts > 1 else ""
        console().print(f"{failed.id} ({failed.stage.replace('_', '-')}, {failed.kind}{tries}): {failed.message}",
                        soft_wrap=True)  # fmt: skip
        if failed.traceback:
            console().print(lines(*(f"  {line}" for line in failed.traceback.rstrip().split("\n"))), soft_wrap=True)
    if not answer.failures:
        console().print("Nothing failed.")


def print_comparison(answer: "ComparedRuns") -> None:
    """A column for each run."""
    from rich.table import Table

    table = Table("")
    rows = answer.runs
    for row in rows:
        table.add_column(_run_name(row.run))
    table.add_row("strategy", *(f"{row.strategy}, {row.variant}" if row.variant else row.strategy for row in rows))
    for key in ("seed", "evaluations", "documents", "failed"):
        table.add_row(key, *(f"{getattr(row, key):,}" for row in rows))
    table.add_row("hours", *(f"{row.hours:.2f}" for row in rows))
    best = [row.best_offspring for row in rows]
    table.add_row("best offspring", *(each.id if each else "" for each in best))
    table.add_row("search score", *(_figure(each.scores.get("search") if each else None) for each in best))
    table.add_row("held-out score", *(_figure(each.scores.get("held_out") if each else None) for each in best))
    gains = (each.gain_over_best_founder.get("held_out") if each else None for each in best)
    table.add_row("gain, held out", *(_figure(gain, sign=True) for gain in gains))
    table.add_row("versus first", *(_versus(row.versus_first.get("held_out")) for row in rows))
    console().print(table)
    for row in rows:
        if row.identical_to is not None:
            console().print(f"{_run_name(row.run)} is identical to run {_run_name(row.identical_to)}: the same merges.")
    console().print("gain: over the run's best founder. versus first: of the best offspring, on held-out documents. "
                    "Both are paired by document. Of all scores higher is better.")  # fmt: skip


def _run_name(run: str) -> str:
    return run.rpartition("#")[2] if "#" in run else Path(run).absolute().name


def _score(score: "SplitScore | None") -> str:
    return "" if score is None else ("" if score.complete else "~") + f"{score.value:.4f}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _figure(entry: "Estimate | Difference | None", *, sign: bool = False) -> str:
    if entry is None:
        return ""
    error = "" if entry.stderr is None else f" ± {entry.stderr:.4f}"
    return f"{entry.value:{'+' if sign else ''}.4f}{error}"


def _versus(entry: "Difference | Incomparable | None") -> str:
    from service.answers.comparison import Incomparable

    return "other documents" if isinstance(entry, Incomparable) else _figure(entry, sign=True)
