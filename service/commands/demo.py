"""`kinship demo`: a trained family, its kinship, searches with their control side by side, one report."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kinship.errors import OutputExists
from service.commands.options import Force
from service.console import console, progress_bar

if TYPE_CHECKING:
    from service.demo.family import Family, Progress
    from service.demo.searches import DemoSearch

FAMILY = "family"
Kind = Literal["tiny", "smol"]
TITLE = "model-kinship demo: searches over one family"


def demo(
    out: Annotated[Path, typer.Option(help="Where the family, the runs and the report go.")] = Path("demo"),
    controls: Annotated[
        int, typer.Option(min=1, max=100, help="How often the control, a random partner, is run, each by its own seed.")
    ] = 3,
    family: Annotated[
        Kind,
        typer.Option(
            help="tiny: models of 0.1M parameters, trained from nothing, 5 minutes. smol: fine-tunes of SmolLM2-135M "
            "(needs the extra smol), 20 minutes."
        ),
    ] = "tiny",
    force: Force = False,
) -> None:
    """Train a small family of models and run everything on it.

    Ends with the path of a report to open.
    """
    with _prepare(out, force=force):
        _run(out, controls, family)


def _run(out: Path, controls: int, kind: Kind) -> None:
    from evaluators.cache import ScoreCache
    from service.answers.comparison import compare_runs
    from service.answers.matrix import measure_matrix
    from service.commands.matrix import print_table
    from service.commands.runs import print_comparison
    from service.commands.search_progress import observed
    from service.pages.files import save_matrix
    from service.pages.report import write_report
    from service.pages.run_folder import run_evolution

    with progress_bar() as bar:
        task = bar.add_task("Training the family", amount="")

        def progress(label: str, step: int, total: int) -> None:
            speed = bar.tasks[task].speed
            rate = f"{label} {speed:.{0 if speed >= 10 else 1}f} steps/s" if speed else label
            bar.update(task, completed=step, total=total, amount=rate)

        make, searches = _parts(kind)
        family = make(out / FAMILY, progress)
    console().print(f"Family of {1 + len(family.founders)} models in {family.folder}")

    matrix = measure_matrix([*family.references().values()], str(family.base))
    for suffix in ("csv", "png", "svg"):
        save_matrix(matrix, out / f"kinship.{suffix}", force=True)
    print_table(matrix.matrix())

    cache = ScoreCache(out / "scores.sqlite")
    views, folders = {}, []
    for search in searches(controls):
        console().print()
        console().print(f"Search, {search.label}")
        folder = out / search.folder
        with observed(as_json=False) as observer:
            config = search.config(family, out)
            view = run_evolution(config, folder, root=out, cache=cache, observer=observer)
        console().print(*filter(None, [view.run.exploration_told, view.run.verdict]))
        views[search.label] = view
        folders.append(str(folder))
    console().print()
    print_comparison(compare_runs(folders))

    report = out / "report.html"
    write_report(report, views, TITLE, force=True)
    console().print()
    console().print(f"Report: {report.absolute()}", soft_wrap=True)


def _parts(
    kind: Kind,
) -> "tuple[Callable[[Path, Progress], Family], Callable[[int], Iterator[DemoSearch]]]":
    """How a family of that kind is made in a folder, and the searches over it by the number of controls."""
    if kind == "smol":
        from service.demo.smol.deals import DEMO as SMOL
        from service.demo.smol.family import make_smol_family
        from service.demo.smol.searches import smol_searches

        return lambda folder, progress: make_smol_family(folder, SMOL, progress), smol_searches
    from service.demo.family import DEMO
    from service.demo.reproducible import make_family_alike
    from service.demo.searches import searches

    return lambda folder, progress: make_family_alike(folder, DEMO, progress), searches


def _prepare(out: Path, *, force: bool) -> AbstractContextManager[None]:
    """An earlier demo is gone on with, or replaced by ``force``; a folder of anything else is left alone."""
    from kinship.output import require_writable, retired
    from service.answers.replaced import foreign_in_demo

    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return nullcontext()
    if not force:
        if not (out / FAMILY / "family.json").exists():
            raise OutputExists(f"{out} exists and holds no demo.", hint="Choose another folder by --out.")
        return nullcontext()
    require_writable(out, force=True, folder=foreign_in_demo)
    return retired(out)
