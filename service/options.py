"""Options that many commands share."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what exists.")]
Models = Annotated[
    list[str],
    typer.Argument(
        help="Folders, .safetensors files, Hub ids (org/name@revision), or BASE+ADAPTER.", show_default=False
    ),
]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Read local .bin, .pt and .pth too, running no code in them.")
]
