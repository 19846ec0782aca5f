"""`kinship compare`: merge methods, compared on tasks that their models were trained on and on unseen ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.options import Json
from service.console import console, notes, print_json, progress_bar, stage_progress

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import TypeVar

    from rich.table import Table
    from rich.text import Text

    from evaluators.cache import ScoreCache
    from search.comparison.plan import ComparisonPlan
    from service.answers.compared_families import ComparedFamilies, FamilyRow
    from service.answers.method_comparison import (
        ComparedRow,
        MethodComparison,
        NamedRow,
        Prerequisites,
        Ranged,
        Spent,
    )

    Row = TypeVar("Row", bound=NamedRow)

FAMILIES = "demo-full"
READY = ("demo", FAMILIES, "smol")


def compare(
    plan: Annotated[
        str,
        typer.Argument(metavar="PLAN.yml", help=f"The plan; or {', '.join(READY)}, made here.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the comparison.", show_default=False)],
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Score cache; default: one in the folder.", show_default=False)
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Where relative paths count from; default: the plan's folder.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare merge methods: held-in and unseen tasks, cost, prerequisites, sensitivity, number of models.

    The same command goes on where it was stopped.
    """
    from evaluators.cache import ScoreCache

    scores = ScoreCache(cache) if cache else None
    if plan == FAMILIES and not Path(plan).is_file():
        _compare_families(out, scores, as_json=as_json)
        return
    answer, report = _compared(plan, out, scores, root=root, quiet=as_json)
    if as_json:
        print_json(answer)
        return
    print_methods(answer)
    notes().print(f"Report: {report}", soft_wrap=True)


def _compare_families(out: Path, scores: "ScoreCache | None", *, as_json: bool) -> None:
    """The demo's comparison over several families, each in a folder of its own."""
    from service.answers.compared_families import pool_families
    from service.demo.compared import FAMILY_SEEDS

    names = {f"seed-{seed}": seed for seed in FAMILY_SEEDS}
    _require_folder(out, {*names})
    found = {name: _compared(FAMILIES, out / name, scores, seed=seed, quiet=as_json) for name, seed in names.items()}
    answer = pool_families({name: answer for name, (answer, _) in found.items()}, out)
    if as_json:
        print_json(answer)
        return
    print_families(answer)
    for _, report in found.values():
        notes().print(f"Report: {report}", soft_wrap=True)


def _compared(
    plan: str, out: Path, scores: "ScoreCache | None", *, root: Path | None = None, seed: int = 0, quiet: bool
) -> "tuple[MethodComparison, Path]":
    """The answer, written into ``out``, and its report."""
    from service.answers.method_comparison import compare_methods
    from service.pages.method_comparison import write_comparison

    checked, start = _plan(plan, out, root, seed)
    with stage_progress(quiet=quiet) as update:
        answer = compare_methods(
            checked,
            out,
            root=start,
            cache=scores,
            progress=lambda done, total, label: update("Arms", done, total, "arms"),
        )
    return answer, write_comparison(out, answer)


def _plan(plan: str, out: Path, root: Path | None = None, seed: int = 0) -> "tuple[ComparisonPlan, Path]":
    """The plan and where its paths count from; a ready one is made in ``out`` and counts from there, its family by
    ``seed``.
    """
    from kinship.errors import ReferenceNotFound
    from search.comparison.plan import load_plan

    path = Path(plan)
    if plan not in READY and not path.is_file():
        raise ReferenceNotFound(
            f"There is no plan at {plan}.", hint=f"Give the path of a YAML file, or a ready plan: {', '.join(READY)}."
        )
    if path.is_file():
        checked = load_plan(path)
        _require_folder(out)
        return checked, (root or path.parent).absolute()
    _require_folder(out)
    with progress_bar() as bar:
        task = bar.add_task("Training the family", amount="")

        def progress(label: str, step: int, total: int) -> None:
            bar.update(task, completed=step, total=total, amount=label)

        if plan == "smol":
            from service.demo.smol.compared import smol_plan

            return smol_plan(out, progress), out
        from service.demo.compared import demo_plan

        return demo_plan(out, full=plan == FAMILIES, seed=seed, progress=progress), out


def _require_folder(out: Path, known: "Collection[str]" = ()) -> None:
    """Raise `OutputExists` for a folder of anything but a comparison, or what is ``known``, before any work."""
    from kinship.errors import OutputExists
    from search.comparison.store import NAME
    from service.demo.compared import MADE

    if not out.exists():
        return
    # What begins with a dot is a lock, or was left by a training that was killed.
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() else {"a file"}
    if NAME not in names and not names <= MADE | {*known}:
        raise OutputExists(f"{out} exists and holds no comparison.", hint="Choose another folder by --out.")


def print_methods(answer: "MethodComparison") -> None:
    """The table: who holds what, who gains what, at what cost; then the rankings and the findings."""
    groups = list(answer.rankings)
    table = _table(f"Held-out documents, seeds {', '.join(map(str, answer.seeds))}", answer)
    for header in ("merge", "statistics"):
        table.add_column(header, justify="right")
    table.add_column("asks for")
    costs = {cost.method: cost for cost in answer.costs}
    asked = {each.method: _asked(each) for each in answer.prerequisites}
    for row, begins in _by_kind(answer.rows):
        if begins:
            table.add_section()
        cost = costs.get(row.method or "")
        spent = ["", ""] if cost is None or row.tuned else [_spent(cost.merge), _spent(cost.statistics)]
        cells = [_scores(row, group) for group in groups] if row.error is None else ["failed"] * len(groups)
        table.add_row(row.label, *cells, *spent, asked.get(row.method or "", ""))
    console().print(table)
    for group in groups:
        console().print(f"Best {group.replace('_', '-')}: {', '.join(answer.rankings[group][:3])}.")
    for finding in answer.findings:
        console().print(f"{finding.finding}: {finding.verdict}. {finding.told}", soft_wrap=True)
    for row in answer.rows:
        if row.error:
            notes().print(f"{row.label}: {row.error}", soft_wrap=True)


def print_families(answer: "ComparedFamilies") -> None:
    """The table of means over families, then the findings in each."""
    table = _table(f"Means over {', '.join(answer.families)}, intervals over families", answer)
    for row, begins in _by_kind(answer.rows):
        if begins:
            table.add_section()
        table.add_row(row.label, *(_scores(row, group) for group in answer.rankings))
    console().print(table)
    for finding in answer.findings:
        verdicts = "; ".join(f"{name}: {verdict}" for name, verdict in finding.verdicts.items())
        console().print(f"{finding.finding}: {verdicts}.", soft_wrap=True)


def _table(title: str, answer: "MethodComparison | ComparedFamilies") -> "Table":
    """A column of rows' names, and one for each group of cells."""
    from rich.table import Table

    from service.terminal import lines

    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for group in answer.rankings:
        table.add_column(lines(group.replace("_", "-"), f"less {answer.reference}"), justify="right")
    return table


def _by_kind(rows: "Sequence[Row]") -> "Iterator[tuple[Row, bool]]":
    """Each row, and whether another kind of rows begins with it."""
    for before, row in zip([rows[0], *rows], rows, strict=False):
        yield row, row.kind != before.kind


def _scores(row: "ComparedRow | FamilyRow", group: str) -> "Text":
    from service.terminal import lines

    score, versus = row.scores.get(group), row.versus_reference.get(group)  # type: ignore[call-overload]
    return lines(*[] if score is None else [f"{score.value:.4f}", *([_signed(versus)] if versus else [])])


def _signed(versus: "Ranged") -> str:
    if versus.low is None or versus.high is None:
        return f"{versus.value:+.4f}"
    return f"{versus.value:+.4f} [{versus.low:+.4f}, {versus.high:+.4f}]"


def _spent(spent: "Spent | None") -> str:
    return "" if spent is None else f"{spent.seconds:.2f} s"


def _asked(each: "Prerequisites") -> str:
    wanted = {"base": "base", "data": "data", "random": "seed"}
    told = [word for name, word in wanted.items() if getattr(each, name)]
    return ", ".join([*told, *([f"tuning of {', '.join(each.tuning)}"] if each.tuning else [])])
