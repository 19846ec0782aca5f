"""`kinship demo`: a trained family, its kinship, three searches side by side, one report."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from kinship.errors import OutputExists
from service.commands.options import Force
from service.console import console, progress_bar

VARIANTS = ("vanilla", "kinship", "random")
FAMILY = "family"
TITLE = "model-kinship demo: three searches over one family"

# Chosen on development seeds of the family, never on the seed that ships: see docs/demo.md.
MERGE: dict[str, Any] = {"method": "linear", "parameters": {"scale": 1.2}}

# The base does this at 99 %, on most seeds: nothing is left to gain, so it is practised but not scored.
MASTERED = {"demo_reverse"}


def demo(
    out: Annotated[Path, typer.Option(help="Where the family, the runs and the report go.")] = Path("demo"),
    force: Force = False,
) -> None:
    """Train a small family of models and run everything on it.

    Ends with the path of a report to open.
    """
    with _prepare(out, force=force):
        _run(out)


def _run(out: Path) -> None:
    from evaluators.cache import ScoreCache
    from search.config import parse_config
    from service.answers.matrix import measure_matrix
    from service.commands.matrix import print_table
    from service.commands.search_progress import observed
    from service.demo.family import DEMO, make_family
    from service.pages.files import save_matrix
    from service.pages.report import write_report
    from service.pages.run_folder import run_evolution

    with progress_bar() as bar:
        task = bar.add_task("Training the family", amount="")

        def progress(label: str, step: int, total: int) -> None:
            speed = bar.tasks[task].speed
            rate = f"{label} {speed:.0f} steps/s" if speed else label
            bar.update(task, completed=step, total=total, amount=rate)

        family = make_family(out / FAMILY, DEMO, progress)
    console().print(f"Family of {1 + len(family.founders)} models in {family.folder}")

    matrix = measure_matrix([str(path) for path in family.founders], str(family.base))
    for suffix in ("csv", "png", "svg"):
        save_matrix(matrix, out / f"kinship.{suffix}", force=True)
    print_table(matrix.matrix())

    tasks = [name for name in family.task_names if name not in MASTERED]
    cache = ScoreCache(out / "scores.sqlite")
    views = {}
    for variant in VARIANTS:
        config = parse_config(
            {
                "base": str(Path(FAMILY) / family.base.name),
                "founders": [str(Path(FAMILY) / founder.name) for founder in family.founders],
                "merge": MERGE,
                "evaluate": {"tasks": tasks, "task_path": f"{FAMILY}/tasks", "batch_size": 256},
                "strategy": {"variant": variant},
            }
        )
        console().print()
        console().print(f"Search, {variant} variant")
        with observed(as_json=False) as observer:
            views[variant] = run_evolution(config, out / f"run-{variant}", root=out, cache=cache, observer=observer)
        console().print(views[variant].run.verdict)

    report = out / "report.html"
    write_report(report, views, TITLE, force=True)
    console().print()
    console().print(f"Report: {report.absolute()}", soft_wrap=True)


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
