"""`kinship verify`."""

import sys
from pathlib import Path

from rich.markup import escape

from merging.verify import verify_folder
from service.console import byte_progress, console, print_json

_MARKS = {True: "[green]ok[/]     ", False: "[bold red]wrong[/]  ", None: "[dim]not seen[/]"}


def run(folder: Path, *, as_json: bool) -> None:
    """Check a model folder; exit code 1 where something is wrong."""
    with byte_progress("Reading", quiet=as_json) as progress:
        checks = verify_folder(folder, progress)
    ok = all(check.ok is not False for check in checks)
    if as_json:
        found = {"schema": "kinship.verify/1", "folder": str(folder), "ok": ok}
        print_json(found | {"checks": [check.to_dict() for check in checks]})
    else:
        for check in checks:
            console().print(f"{_MARKS[check.ok]} {check.name}: {escape(check.detail)}", soft_wrap=True)
        console().print(f"{folder} is {'whole' if ok else 'not as it should be'}.", soft_wrap=True)
    if not ok:
        sys.exit(1)
