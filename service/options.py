"""Options that many commands share."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what exists.")]
