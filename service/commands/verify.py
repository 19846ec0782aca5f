"""`kinship verify`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from merging.output.verify import Check, verify_folder
from service.console import byte_progress, console, print_json

_MARKS = {True: "[green]ok[/]     ", False: "[bold red]wrong[/]  ", None: "[dim]not seen[/]"}


def run(folder: Path, *, as_json: bool) -> None:
    """Check a model folder; exit code 1 where something is wrong."""
    with byte_progress("Reading", quiet=as_json) as progress:
        checks = verify_folder(folder, progress)
    if not print_checks(str(folder), checks, "kinship.verify/1", "folder", as_json=as_json):
        sys.exit(1)


def print_checks(name: str, checks: Sequence[Check], schema: str, kind: str, *, as_json: bool) -> bool:
    """Print what was found of ``name``, which is of that ``kind``; whether nothing is wrong."""
    ok = all(check.ok is not False for check in checks)
    if as_json:
        print_json({"schema": schema, kind: name, "ok": ok, "checks": [check.to_dict() for check in checks]})
    else:
        for check in checks:
            console().print(f"{_MARKS[check.ok]} {check.name}: {escape(check.detail)}", soft_wrap=True)
        console().print(f"{escape(name)} is {'whole' if ok else 'not as it should be'}.", soft_wrap=True)
    return ok
