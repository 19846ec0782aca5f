"""`kinship extract-lora`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from service.commands.options import Base, Force, Json, VerifyInputs
from service.console import byte_progress, console, note, print_json

if TYPE_CHECKING:
    from service.answers.extraction import ExtractedLora


class Kept(StrEnum):
    """What can be kept whole; typer knows lists of an Enum, and none of literals."""

    embeddings = "embeddings"
    norms = "norms"
    biases = "biases"
    others = "others"
    all = "all"


def extract_lora(
    model: Annotated[str, typer.Argument(help="The fine-tune, as for matrix.", show_default=False)],
    base: Base,
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    rank: Annotated[int | None, typer.Option(min=1, help="Of each module's factors; default: 32.")] = None,
    energy: Annotated[
        float | None,
        typer.Option(help="Instead: the least rank that keeps this share of each change's squares, as 0.9."),
    ] = None,
    modules_to_save: Annotated[
        list[Kept] | None,
        typer.Option(help="Keep these whole where they changed; may be repeated.", show_default=False),
    ] = None,
    verify_inputs: VerifyInputs = False,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Make a PEFT LoRA adapter of a fine-tune, by singular values of what was trained."""
    from merging.extraction.layout import Saved
    from service.answers.extraction import extract_adapter

    chosen = {kept.value for kept in modules_to_save or ()}
    save: list[Saved] = [kind for kind in get_args(Saved) if chosen & {kind, "all"}]
    with byte_progress("Extracting", quiet=as_json) as progress:
        answer = extract_adapter(model, base, out, rank=rank, energy=energy, save=save, force=force, progress=progress)
    print_json(answer) if as_json else print_extraction(answer)


def print_extraction(answer: "ExtractedLora") -> None:
    """What was written, and by layer what it lacks of the fine-tune."""
    from rich.table import Table

    table = Table(title="What the factors lack of each layer's change", title_justify="left")
    for header in ("layer", "change", "error", "share"):
        table.add_column(header, justify="left" if header == "layer" else "right")
    for layer in answer.layers:
        table.add_row(layer.layer, f"{layer.norm:.4g}", f"{layer.error:.3g}", f"{100 * layer.relative_error:.2f} %")
    console().print(table)
    ranks = sorted({module.rank for module in answer.modules})
    shown = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    console().print(
        f"{len(answer.modules)} modules of rank {shown}, {len(answer.saved)} tensors whole, "
        f"{answer.parameters:,} parameters; {100 * answer.relative_error:.2f} % of the whole task vector is not in it.",
        soft_wrap=True,
    )
    if answer.left_out:
        name, reason = next(iter(answer.left_out.items()))
        more = f" and {len(answer.left_out) - 1} more tensors" if len(answer.left_out) > 1 else ""
        note(f"The base's stay {name}{more}: {reason}.")
    console().print(f"Wrote {answer.out}", soft_wrap=True)
