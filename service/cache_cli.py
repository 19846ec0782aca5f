"""The ``kinship cache`` commands."""

from pathlib import Path
from typing import Annotated

import typer

from service.console import Json

cache_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look after the scores that are kept.")

Cache = Annotated[Path | None, typer.Option("--cache", help="The file; default: the user's own.", show_default=False)]


@cache_app.command("list")
def cache_list(cache: Cache = None, as_json: Json = False) -> None:
    """What is kept: models, tasks, numbers of documents."""
    from service.commands.cache import list_entries

    list_entries(cache, as_json=as_json)


@cache_app.command("size")
def cache_size(cache: Cache = None, as_json: Json = False) -> None:
    """How much is kept, and where."""
    from service.commands.cache import size

    size(cache, as_json=as_json)


@cache_app.command("prune")
def cache_prune(
    cache: Cache = None,
    older_than: Annotated[str | None, typer.Option(metavar="TIME", help="Not used for so long: 12h, 30d, 8w.")] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of these the least recently used, until all take 500MB, 2GB.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="GLOB", help="Models called so when first scored.")] = None,
    task: Annotated[str | None, typer.Option(metavar="GLOB", help="Tasks called so.")] = None,
    broken: Annotated[bool, typer.Option("--broken", help="What cannot be read, or is not finite.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what all the options given mean together."""
    from service.commands.cache import prune

    prune(
        cache,
        older_than=older_than,
        max_size=max_size,
        model=model,
        task=task,
        broken=broken,
        dry_run=dry_run,
        as_json=as_json,
    )


@cache_app.command("verify")
def cache_verify(cache: Cache = None, as_json: Json = False) -> None:
    """Read everything back and check that it is whole and finite.

    Exit code 1 where something is wrong.
    """
    from service.commands.cache import verify

    if not verify(cache, as_json=as_json):
        raise typer.Exit(1)
