"""`kinship evolve`."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinship.errors import OutputExists
from service.commands.options import Force, Ledger, ScoreCacheFile, VerifyInputs
from service.console import console, note, notes, print_json

if TYPE_CHECKING:
    from search.ledger.location import LedgerLocation
    from service.answers.plan import SearchPlan


def evolve(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yml", help="The run file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the run.", show_default=False)],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in that folder, or start it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan.")] = False,
    ledger: Ledger = None,
    timed: Annotated[bool, typer.Option("--time", help="With --dry-run: time a founder on a few documents.")] = False,
    cache: ScoreCacheFile = None,
    verify_inputs: VerifyInputs = False,
    root: Annotated[
        Path | None,
        typer.Option(help="Where relative paths count from; default: the run file's folder.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line for every event.")] = False,
    force: Force = False,
) -> None:
    """Search for better models by merging, over generations.

    Ctrl-C pauses: every result so far is kept, and --resume goes on.
    """
    from evaluators.cache import open_cache
    from search.config import load_config
    from service.answers.replaced import inputs_of_run

    config = load_config(run_file)
    root = root.absolute() if root else run_file.absolute().parent
    if dry_run:
        from service.answers.dry_run import plan_search

        plan = plan_search(config, root, out, timed=timed)
        print_json(plan) if as_json else print_plan(plan)
        return
    force = force and not resume
    inputs = [run_file, *inputs_of_run(config, root), *([cache] if cache and cache.exists() else [])]
    prepare_folder(out, resume=resume, force=force, ledger=ledger, inputs=inputs)
    from service.commands.search_progress import observed
    from service.pages.run_folder import run_evolution

    with observed(as_json=as_json) as observer:
        try:
            found = run_evolution(
                config,
                out,
                root=root,
                cache=open_cache(cache),
                observer=observer,
                ledger=ledger,
                told=note,
                force=force,
            )
        except KeyboardInterrupt:
            notes().print()
            notes().print(f"Paused. Every result so far is kept; go on with: kinship evolve {run_file} "
                          f"--out {out} --resume", soft_wrap=True)  # fmt: skip
            raise
    if not as_json:
        if found.run.exploration:
            console().print(found.run.exploration_told)
        console().print(found.run.verdict)
        console().print(f"Report: {out / 'report.html'}", soft_wrap=True)


def prepare_folder(
    out: Path, *, resume: bool, force: bool, ledger: str | None = None, inputs: Iterable[Path] = ()
) -> None:
    """Make sure that ``out``, and the run in a database, may be used: new, or a run to resume, or to be replaced.

    Nothing is changed, but that a run which was being replaced when its process died returns.
    """
    from kinship.output import clear_abandoned, require_writable
    from search.ledger.location import LedgerLocation, holds_run
    from service.answers.replaced import foreign_in_run

    clear_abandoned(out)
    occupied = os.path.lexists(out) and (not out.is_dir() or any(out.iterdir()))
    if occupied and not resume:
        if not force:
            raise OutputExists(
                f"{out} exists already.", hint="Go on with it by --resume, replace it by --force, or choose another."
            )
        require_writable(out, force=True, folder=foreign_in_run, inputs=inputs)
    if ledger is not None and not resume and not force:
        _require_new(LedgerLocation.parse(ledger, out.absolute().name))
    if occupied and resume and not holds_run(out) and not (out / ".lock").exists():
        raise OutputExists(f"{out} is not the folder of a run.", hint="Choose the folder that was given as --out.")
    if not occupied:
        require_writable(out / "ledger")


def _require_new(place: "LedgerLocation") -> None:
    from search.ledger.ledger import Ledger

    with Ledger(place, exclusive=True) as ledger:
        if ledger.facts() is not None:
            raise OutputExists(
                f"{place} exists already.",
                hint="Go on with it by --resume, replace it by --force, or give it another name: URL#NAME.",
            )


def print_plan(plan: "SearchPlan") -> None:
    """The plan, for people with units."""
    from rich.filesize import decimal

    for key, value in plan.content().items():
        if key == "schema":
            continue
        if value is None:
            text = "no limit" if key.endswith("_at_most") and key != "hours_at_most" else "not timed (--time)"
        elif isinstance(value, list):
            text = ", ".join(value)
        elif key in {"bytes_to_read", "memory", "disk", "disk_free"}:
            text = decimal(value)
        else:
            text = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        console().print(f"{key.replace('_', ' '):<28} {text}", soft_wrap=True)
