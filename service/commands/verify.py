"""`kinship verify`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.options import Json, VerifyInputs
from service.console import byte_progress, console, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.answers.checks import Check

MARKS = {True: ("ok      ", "green"), False: ("wrong   ", "bold red"), None: ("not seen", "dim")}


def verify(
    folder: Annotated[Path, typer.Argument(help="Model folder.", show_default=False)],
    verify_inputs: VerifyInputs = False,
    as_json: Json = False,
) -> None:
    """Check a model folder: checksums, headers, index, tied heads, config.

    Exit code 1 where something is wrong.
    """
    from service.answers.checks import check_folder

    with byte_progress("Reading", quiet=as_json) as progress:
        answer = check_folder(folder, progress)
    print_json(answer) if as_json else print_checks(answer.folder, answer.checks, ok=answer.ok)
    if not answer.ok:
        raise typer.Exit(1)


def print_checks(name: str, checks: "Sequence[Check]", *, ok: bool) -> None:
    """What was found of ``name``, a line a check."""
    from service.terminal import styled

    for check in checks:
        console().print(styled(MARKS[check.ok], f" {check.name}: {check.detail}"), soft_wrap=True)
    console().print(f"{name} is {'whole' if ok else 'not as it should be'}.", soft_wrap=True)
