"""`kinship align`."""

from pathlib import Path
from typing import Annotated

import typer

from service.commands.options import Force, Json, VerifyInputs
from service.console import byte_progress, console, note, print_json


def align(
    model: Annotated[str, typer.Argument(help="A model as for matrix, of Llama's type.", show_default=False)],
    to: Annotated[str, typer.Option(help="The model whose order of units it gets.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    residual: Annotated[
        bool, typer.Option(help="Permute the channels that all layers share, embeddings among them, too.")
    ] = True,
    verify_inputs: VerifyInputs = False,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Permute the units of a model to be most like another's, so that the two can be averaged.

    For models of different initialisations; fine-tunes of one base need none of it.
    """
    from service.answers.alignment import align_model

    with byte_progress("Aligning", quiet=as_json) as progress:
        answer = align_model(model, to, out, residual=residual, force=force, progress=progress, told=note)
    if as_json:
        print_json(answer)
        return
    console().print(f"Cosine of the weights to {answer.to}: {answer.before:.4f} before, {answer.after:.4f} after.")
    if answer.after == answer.before:
        note("No order of units is more alike: they are of one start, or too far apart.")
    console().print(f"Wrote {answer.out}", soft_wrap=True)
