"""`kinship index`."""

from pathlib import Path
from typing import TYPE_CHECKING

from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig
from kinship.sketches.index import SketchIndex
from service.console import byte_progress, console, notes, print_json

if TYPE_CHECKING:
    from kinship.sketches.sketch import Sketch


def add(index: Path, models: list[str], *, allow_pickle: bool, as_json: bool, force: bool) -> None:
    """Sketch models and keep the sketches, each under its reference, as soon as it is made."""
    if len(set(models)) < len(models):
        raise InvalidConfig("A model is given twice.", hint="Name each once.")
    kept = SketchIndex(index)
    for model in models:
        made, state = _sketched(model, allow_pickle=allow_pickle, quiet=as_json)
        kept.add(model, made, state=state, force=force)
        if not as_json:
            console().print(f"Added {model}", soft_wrap=True)
    if as_json:
        print_json({"schema": "kinship.index/1", "index": str(index), "models": kept.ids})


def remove(index: Path, models: list[str], *, as_json: bool) -> None:
    """Forget models."""
    kept = SketchIndex(index)
    for model in models:
        kept.remove(model)
    list_models(index, as_json=as_json)


def list_models(index: Path, *, as_json: bool) -> None:
    """The models of an index."""
    ids = SketchIndex(index).ids
    if as_json:
        print_json({"schema": "kinship.index/1", "index": str(index), "models": ids})
        return
    for id in ids:
        console().print(id, soft_wrap=True)


def query(index: Path, model: str, top: int, *, allow_pickle: bool, as_json: bool) -> None:
    """The relatives of a model, the nearest first."""
    kept = SketchIndex(index)
    everyone = kept.query(_sketched(model, allow_pickle=allow_pickle, quiet=as_json)[0])
    relatives = [relative for relative in everyone if relative.related]
    if as_json:
        found = {"schema": "kinship.relatives/1", "model": model, "compared": len(everyone)}
        print_json(found | {"relatives": [relative.to_dict() for relative in relatives[:top]]})
        return
    if not relatives:
        console().print(f"{model} is related to none of the {len(everyone)} models of its kind there.", soft_wrap=True)
        return
    from rich.table import Table

    table = Table(title=f"Relatives of {model}", title_justify="left")
    table.add_column("model", overflow="fold")
    for header in ("distance", "correlation", "compared"):
        table.add_column(header, justify="right")
    for relative in relatives[:top]:
        row = (f"{relative.distance:.5f}", f"{relative.correlation:.3f}", f"{relative.shared:.0%}")
        table.add_row(relative.id, *row)
    console().print(table)
    notes().print(
        f"{len(relatives)} of {len(everyone)} models with tensors of the same names and sizes are related to it. "
        "Distances are estimates, relative to the norm of the weights.",
        soft_wrap=True,
    )


def _sketched(model: str, *, allow_pickle: bool, quiet: bool) -> "tuple[Sketch, str | None]":
    """The sketch, and the state of the files that it was made from."""
    from kinship.sketches.sketch import sketch

    with open_checkpoint(model, allow_pickle=allow_pickle) as checkpoint:
        total, done = sum(entry.nbytes for entry in checkpoint.tensors.values()), 0
        with byte_progress(f"Sketching {model}", quiet=quiet) as progress:

            def report(count: int) -> None:
                nonlocal done
                done += count
                progress(done, total)

            state = checkpoint.fingerprint
            return sketch(checkpoint, report), state
