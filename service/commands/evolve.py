"""`kinship evolve`."""

import shutil
from pathlib import Path
from typing import Any

from evaluators.cache import open_cache
from kinship.errors import OutputExists
from kinship.output import require_writable
from search.config import load_config
from search.ledger.ledger import Ledger
from search.ledger.location import LedgerLocation, holds_run
from service.console import console, notes, print_json


def run(
    run_file: Path,
    out: Path,
    *,
    resume: bool,
    dry_run: bool,
    timed: bool,
    cache: Path | None,
    as_json: bool,
    force: bool,
    ledger: str | None = None,
) -> None:
    """Search, or resume, or print the plan."""
    config = load_config(run_file)
    root = run_file.absolute().parent
    if dry_run:
        from service.answers.plan import plan

        print_plan(plan(config, root, out, timed=timed), as_json=as_json)
        return
    prepare_folder(out, resume=resume, force=force, ledger=ledger)
    from service.answers.evolve import run_evolution
    from service.commands.progress import observed

    with observed(as_json=as_json) as observer:
        try:
            view = run_evolution(config, out, root=root, cache=open_cache(cache), observer=observer, ledger=ledger)
        except KeyboardInterrupt:
            notes().print(f"\nPaused. Every result so far is kept; go on with: kinship evolve {run_file} "
                          f"--out {out} --resume", soft_wrap=True, markup=False)  # fmt: skip
            raise
    if not as_json:
        console().print(view.verdict())
        console().print(f"Report: {out / 'report.html'}", soft_wrap=True)


def prepare_folder(out: Path, *, resume: bool, force: bool, ledger: str | None = None) -> None:
    """Make sure that ``out``, and the run in a database, may be used: new, or a run to resume, or to be replaced."""
    occupied = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if occupied and not resume:
        if not force:
            raise OutputExists(
                f"{out} exists already.", hint="Go on with it by --resume, replace it by --force, or choose another."
            )
        if not holds_run(out):
            raise OutputExists(f"{out} is not the folder of a run; it is not replaced.", hint="Choose another --out.")
    if ledger is not None and not resume:
        _prepare_database(LedgerLocation.parse(ledger, out.absolute().name), force=force)
    if occupied and not resume:
        shutil.rmtree(out)
    if occupied and resume and not holds_run(out) and not (out / ".lock").exists():
        raise OutputExists(f"{out} is not the folder of a run.", hint="Choose the folder that was given as --out.")
    require_writable(out, force=True)


def _prepare_database(location: LedgerLocation, *, force: bool) -> None:
    with Ledger(location, exclusive=True) as ledger:
        if ledger.facts() is None:
            return
        if not force:
            raise OutputExists(
                f"{location} exists already.",
                hint="Go on with it by --resume, replace it by --force, or give it another name: URL#NAME.",
            )
        ledger.delete()


def print_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    """The plan, for people with units."""
    if as_json:
        print_json(plan)
        return
    from rich.filesize import decimal

    for key, value in plan.items():
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
