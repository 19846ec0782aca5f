"""`kinship runs`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from kinship.errors import LedgerError
from search.export import export_run, rank, to_json
from search.ledger import LEDGER_NAME, Ledger
from search.records import best_offspring, ranked
from service.console import console, notes, print_json
from service.report.view import verdict

MOST_ROWS = 100


def export(folder: Path) -> None:
    """Print a run's canonical export."""
    with Ledger.of_run(folder) as ledger:
        sys.stdout.write(to_json(export_run(ledger)))


def show(folder: Path, *, failures: bool, as_json: bool) -> None:
    """Print a run's individuals, best first, or its failures with their tracebacks."""
    with Ledger.of_run(folder) as ledger:
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
    console().print(f"{verdict(content)} Stopped because {content['stopped'] or 'it is not finished'}.")


def list_runs(folder: Path, *, as_json: bool) -> None:
    """Print the runs in and below a folder."""
    rows = list(_runs(folder))
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
        name = str(Path(row["folder"]).relative_to(folder))
        score, hours = _number(row["score"], "{:.4f}"), f"{row['hours']:.2f}"
        table.add_row(name, row["strategy"], *counts, row["best"] or "", score, hours, stopped)
    console().print(table)


def _runs(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.rglob(LEDGER_NAME)):
        try:
            with Ledger(file) as ledger:
                facts, records = ledger.facts(), ledger.records()
                if facts is None:
                    continue
                best = next(iter(ranked(records)), None)
                offspring = [record for record in records if record.generation > 0]
                winner = best_offspring(records)
                yield {
                    "folder": str(file.parent),
                    "strategy": facts.config["strategy"]["name"],
                    "founders": sum(record.role == "founder" for record in records),
                    "offspring": len(offspring),
                    "failed": sum(record.error is not None for record in offspring),
                    "best": best.id if best else None,
                    "best_offspring": winner.id if winner else None,
                    "score": best.fitness if best else None,
                    "hours": ledger.seconds() / 3600,
                    "stopped": ledger.stopped(),
                }
        except LedgerError as error:
            notes().print(f"{file.parent}: {error.message}", markup=False, soft_wrap=True)


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
