"""The commands of ``kinship index``."""

from pathlib import Path
from typing import Annotated

import typer

from service.console import AllowPickle, Force, Json, Models

index_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Find relatives among thousands of models.")

IndexFile = Annotated[Path, typer.Argument(metavar="INDEX", help="The index, one file.", show_default=False)]


@index_app.command("add")
def index_add(
    index: IndexFile, models: Models, allow_pickle: AllowPickle = False, as_json: Json = False, force: Force = False
) -> None:
    """Sketch models, reading their weights once, and keep the sketches."""
    from service.commands.index import add

    add(index, models, allow_pickle=allow_pickle, as_json=as_json, force=force)


@index_app.command("query")
def index_query(
    index: IndexFile,
    model: Annotated[str, typer.Argument(help="A model as for index add.", show_default=False)],
    top: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 20,
    allow_pickle: AllowPickle = False,
    as_json: Json = False,
) -> None:
    """The models of an index that a model is related to, the nearest first."""
    from service.commands.index import query

    query(index, model, top, allow_pickle=allow_pickle, as_json=as_json)


@index_app.command("list")
def index_list(index: IndexFile, as_json: Json = False) -> None:
    """The models of an index."""
    from service.commands.index import list_models

    list_models(index, as_json=as_json)


@index_app.command("remove")
def index_remove(
    index: IndexFile,
    models: Annotated[list[str], typer.Argument(help="As the index lists them.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Forget models."""
    from service.commands.index import remove

    remove(index, models, as_json=as_json)
