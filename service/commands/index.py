"""`kinship index`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.options import AllowPickle, Force, Json, Models, VerifyInputs
from service.console import byte_progress, console, notes, print_json

if TYPE_CHECKING:
    from service.answers.index import IndexedModels, Relatives

index = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Find relatives among thousands of models.")

IndexFile = Annotated[Path, typer.Argument(metavar="INDEX", help="The index, one file.", show_default=False)]


@index.command("add")
def add(
    index: IndexFile,
    models: Models,
    allow_pickle: AllowPickle = False,
    verify_inputs: VerifyInputs = False,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Sketch models, reading their weights once, and keep the sketches."""
    from service.answers.index import add_models

    def tell(model: str) -> None:
        if not as_json:
            console().print(f"Added {model}", soft_wrap=True)

    answer = add_models(index, models, allow_pickle=allow_pickle, force=force, watch=_watch(quiet=as_json), added=tell)
    if as_json:
        print_json(answer)


@index.command("query")
def query(
    index: IndexFile,
    model: Annotated[str, typer.Argument(help="A model as for index add.", show_default=False)],
    top: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 20,
    allow_pickle: AllowPickle = False,
    verify_inputs: VerifyInputs = False,
    as_json: Json = False,
) -> None:
    """The models of an index that a model is related to, the nearest first."""
    from service.answers.index import find_relatives

    answer = find_relatives(index, model, allow_pickle=allow_pickle, watch=_watch(quiet=as_json))
    print_json(answer.nearest(top)) if as_json else print_relatives(answer, top)


@index.command("list")
def list_models(index: IndexFile, as_json: Json = False) -> None:
    """The models of an index."""
    from service.answers.index import list_index

    print_models(list_index(index), as_json=as_json)


@index.command("remove")
def remove(
    index: IndexFile,
    models: Annotated[list[str], typer.Argument(help="As the index lists them.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Forget models."""
    from service.answers.index import remove_models

    print_models(remove_models(index, models), as_json=as_json)


def print_models(answer: "IndexedModels", *, as_json: bool) -> None:
    """One model a line."""
    if as_json:
        print_json(answer)
        return
    for id in answer.models:
        console().print(id, soft_wrap=True)


def print_relatives(answer: "Relatives", top: int) -> None:
    """A table of the nearest, and how many there are."""
    from rich.table import Table

    if not answer.relatives:
        console().print(
            f"{answer.model} is related to none of the {answer.compared} models of its kind there.", soft_wrap=True
        )
        return
    table = Table(title=f"Relatives of {answer.model}", title_justify="left")
    table.add_column("model", overflow="fold")
    for header in ("distance", "correlation", "compared"):
        table.add_column(header, justify="right")
    for relative in answer.nearest(top).relatives:
        row = (f"{relative.distance:.5f}", f"{relative.correlation:.3f}", f"{100 * relative.shared:.0f} %")
        table.add_row(relative.id, *row)
    console().print(table)
    notes().print(
        f"{len(answer.relatives)} of {answer.compared} models with tensors of the same names and sizes are related to "
        "it. Distances are estimates, relative to the norm of the weights.",
        soft_wrap=True,
    )


def _watch(*, quiet: bool) -> Callable[[str], AbstractContextManager[Callable[[int, int], None]]]:
    return lambda model: byte_progress(f"Sketching {model}", quiet=quiet)
