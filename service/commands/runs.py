"""`kinship runs`."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from kinship.errors import LedgerError, OutputExists
from kinship.output import output_folder, require_writable
from search.history.archive import archive, restore
from search.history.audit import verify_ledger
from search.history.export import export_run, rank, to_json
from search.ledger.database import runs_in
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME, POINTER_NAME, LedgerLocation, holds_run, write_pointer
from search.ledger.records import best_offspring, ranked
from service.answers.runs import open_run
from service.commands.verify import print_checks
from service.console import console, notes, print_json
from service.pages.view import verdict

MOST_ROWS = 100
MOST_NAMED = 20  # of a Pareto front


def export(run: str, *, full: bool) -> None:
    """Print a run's canonical export, or all there is of it."""
    with open_run(run) as ledger:
        sys.stdout.write(to_json(archive(ledger) if full else export_run(ledger)))


def import_run(file: Path, out: Path, ledger: str | None, *, as_json: bool, force: bool) -> None:
    """Rebuild a run from its full export, in ``out`` or in a database; nothing remains where that fails."""
    require_writable(out, force=force)
    if out.exists() and not holds_run(out):
        raise OutputExists(f"{out} is not the folder of a run; it is not replaced.", hint="Choose another folder.")
    content = _read_archive(file)
    if ledger is None:
        with output_folder(out, force=force) as partial, Ledger(partial / LEDGER_NAME) as run:
            restore(content, run)
        place = LedgerLocation.of_file(out / LEDGER_NAME)
    else:
        place = LedgerLocation.parse(ledger, out.absolute().name)
        with output_folder(out, force=force) as partial, Ledger(place, exclusive=True) as run:
            if run.facts() is not None and not force:
                raise OutputExists(f"{place} exists already.", hint="Choose another name, or replace it with --force.")
            run.delete()
            try:
                restore(content, run)
            except BaseException:
                run.delete()
                raise
            write_pointer(partial, place)
    count = len(content["individuals"])
    if content["stored"]:
        notes().print(f"To go on with the run, put its children/ into {out}: their weights are not in the file.",
                      markup=False, soft_wrap=True)  # fmt: skip
    if as_json:
        print_json({"schema": "kinship.runs-import/1", "folder": str(out), "ledger": str(place), "individuals": count})
    else:
        console().print(f"{count:,} individuals are in {place}.", markup=False, soft_wrap=True)


def verify(run: str, *, as_json: bool) -> bool:
    """Check a run's ledger; whether nothing is wrong."""
    with open_run(run) as ledger:
        checks = verify_ledger(ledger)
    return print_checks(run, checks, "kinship.runs-verify/1", "run", as_json=as_json)


def show(folder: str, *, failures: bool, as_json: bool) -> None:
    """Print a run's individuals, best first, or its failures with their tracebacks."""
    with open_run(folder) as ledger:
        if failures:
            _failures(ledger, as_json=as_json)
            return
        content = export_run(ledger)
    if as_json:
        print_json(content)
        return
    table = Table(title=f"Run in {folder}", title_justify="left")
    for header in ("id", "parents", "role", "kinship", "gain", "search", "held-out"):
        table.add_column(header, justify="left" if header in {"id", "parents", "role"} else "right")
    people = sorted(content["individuals"], key=rank)
    for person in people[:MOST_ROWS]:
        table.add_row(
            person["id"],
            " x ".join(person["parents"]),
            "failed" if person["error"] else f"= {person['twin']}" if person["twin"] else person["role"],
            _number(person["kinship_of_parents"], "{:.3f}"),
            _number(person["merge_gain"], "{:+.4f}"),
            *(_score(person["scores"].get(split)) for split in ("search", "held_out")),
        )
    console().print(table)
    if len(people) > MOST_ROWS:
        console().print(f"{len(people) - MOST_ROWS:,} more: see `kinship runs export`.")
    if content["pareto_front"]:
        front = ", ".join(content["pareto_front"][:MOST_NAMED]) + (
            ", ..." if content["pareto_front"][MOST_NAMED:] else ""
        )
        console().print(f"Beaten by nobody on all tasks at once: {front}.", markup=False, soft_wrap=True)
    console().print(f"{verdict(content)} Stopped because {content['stopped'] or 'it is not finished'}.")


def list_runs(where: str, *, as_json: bool) -> None:
    """Print the runs in and below a folder, or in a database."""
    rows = list(_runs(where))
    if as_json:
        print_json({"schema": "kinship.runs/1", "runs": rows})
        return
    table = Table()
    for header in ("run", "strategy", "founders", "offspring", "failed", "best", "score", "hours", "stopped"):
        table.add_column(
            header, justify="right" if header in {"founders", "offspring", "failed", "score", "hours"} else "left"
        )
    for row in rows:
        counts = (str(row[key]) for key in ("founders", "offspring", "failed"))
        stopped = row["stopped"] or "not finished"
        name = row["folder"] if "://" in where else str(Path(row["folder"]).relative_to(where))
        score, hours = _number(row["score"], "{:.4f}"), f"{row['hours']:.2f}"
        table.add_row(name, row["strategy"], *counts, row["best"] or "", score, hours, stopped)
    console().print(table)


def _runs(where: str) -> Iterator[dict[str, Any]]:
    if "://" in where:
        place = LedgerLocation.parse(where, "any")
        for run in runs_in(place):
            found = replace(place, run=run)
            with Ledger(found) as ledger:
                yield from _row(ledger, str(found))
        return
    files = [*Path(where).rglob(LEDGER_NAME), *Path(where).rglob(POINTER_NAME)]
    for folder in sorted({file.parent for file in files}):
        try:
            with Ledger.of_run(folder) as ledger:
                yield from _row(ledger, str(folder))
        except LedgerError as error:
            notes().print(f"{folder}: {error.message}", markup=False, soft_wrap=True)


def _row(ledger: Ledger, name: str) -> Iterator[dict[str, Any]]:
    """What is listed of a run; nothing where none has begun."""
    facts, records = ledger.facts(), ledger.records()
    if facts is None:
        return
    best, winner = next(iter(ranked(records)), None), best_offspring(records)
    offspring = [record for record in records if record.generation > 0]
    yield {
        "folder": name,
        "strategy": facts.config.strategy.name,
        "founders": sum(record.role == "founder" for record in records),
        "offspring": len(offspring),
        "failed": sum(record.error is not None for record in offspring),
        "best": best.id if best else None,
        "best_offspring": winner.id if winner else None,
        "score": best.fitness if best else None,
        "hours": ledger.seconds() / 3600,
        "stopped": ledger.stopped(),
    }


def _read_archive(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise LedgerError(f"{file} cannot be read: {error.strerror}.", hint="Give a full export.") from None
    except ValueError as error:
        raise LedgerError(f"{file} is no JSON: {error}.", hint="Make it with `kinship runs export --full`.") from None
    return content


def _failures(ledger: Ledger, *, as_json: bool) -> None:
    found = [{"id": id, **vars(failed)} for id, all in ledger.failures().items() for failed in all]
    if as_json:
        print_json({"schema": "kinship.failures/1", "failures": found})
        return
    for failed in found:
        tries = f", tried {failed['attempts']} times" if failed["attempts"] > 1 else ""
        console().print(f"{failed['id']} ({failed['stage'].replace('_', '-')}, {failed['kind']}{tries}): "
                        f"{failed['message']}", markup=False, soft_wrap=True)  # fmt: skip
        if failed["traceback"]:
            console().print(failed["traceback"].rstrip(), markup=False, soft_wrap=True)
    if not found:
        console().print("Nothing failed.")


def _score(entry: dict[str, Any] | None) -> str:
    return "" if entry is None else ("" if entry["complete"] else "~") + f"{entry['value']:.4f}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
