"""`kinship runs`."""

import sys
from pathlib import Path

from rich.table import Table

from search.export import to_json
from service.console import console, print_json
from service.report.view import RunView


def export(folder: Path) -> None:
    """Print a run's canonical export."""
    sys.stdout.write(to_json(RunView.open(folder).export))


def show(folder: Path, *, as_json: bool) -> None:
    """Print a run's individuals, best first."""
    view = RunView.open(folder)
    if as_json:
        print_json(view.export)
        return
    table = Table(title=f"Run in {folder}", title_justify="left")
    for header in ("id", "parents", "role", "kinship", "gain", "search", "held-out"):
        table.add_column(header, justify="left" if header in {"id", "parents", "role"} else "right")
    people = view.individuals.values()
    for person in sorted(people, key=lambda p: (-p["scores"].get("search", {"value": -1})["value"], p["id"])):
        table.add_row(
            person["id"],
            " x ".join(person["parents"]),
            "failed" if person["error"] else person["role"],
            _number(person["kinship_of_parents"], "{:.3f}"),
            _number(person["merge_gain"], "{:+.4f}"),
            *(_number(person["scores"].get(split, {}).get("value"), "{:.4f}") for split in ("search", "held_out")),
        )
    console().print(table)
    console().print(f"{view.verdict()} Stopped because {view.export['stopped'] or 'it is not finished'}.")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
