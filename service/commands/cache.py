"""`kinship cache`."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.options import Json
from service.console import console, print_json

if TYPE_CHECKING:
    from service.answers.cache import CacheChecks, CachedScore, CacheList, CachePrune, CacheSize

cache = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look after the scores that are kept.")

CacheFile = Annotated[
    Path | None, typer.Option("--cache", help="The file; default: the user's own.", show_default=False)
]


@cache.command("list")
def list_entries(cache: CacheFile = None, as_json: Json = False) -> None:
    """What is kept: models, tasks, numbers of documents."""
    from service.answers.cache import list_cache

    answer = list_cache(cache)
    print_json(answer) if as_json else print_entries(answer)


@cache.command("size")
def size(cache: CacheFile = None, as_json: Json = False) -> None:
    """How much is kept, and where."""
    from service.answers.cache import measure_cache

    answer = measure_cache(cache)
    print_json(answer) if as_json else print_size(answer)


@cache.command("prune")
def prune(
    cache: CacheFile = None,
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
    from service.answers.cache import prune_cache

    answer = prune_cache(
        cache, older_than=older_than, max_size=max_size, model=model, task=task, broken=broken, dry_run=dry_run
    )
    print_json(answer) if as_json else print_pruned(answer)


@cache.command("verify")
def verify(cache: CacheFile = None, as_json: Json = False) -> None:
    """Read everything back and check that it is whole and finite.

    Exit code 1 where something is wrong.
    """
    from service.answers.cache import check_cache

    answer = check_cache(cache)
    print_json(answer) if as_json else print_problems(answer)
    if not answer.ok:
        raise typer.Exit(1)


def print_entries(answer: "CacheList") -> None:
    """A table of what is kept."""
    from rich.filesize import decimal
    from rich.table import Table

    table = Table("model", "task", "metric", "documents", "size", "last used", title=answer.path)
    for entry in answer.entries:
        used = datetime.fromtimestamp(entry.used).date().isoformat()
        size = decimal(entry.bytes)
        table.add_row(_name(entry), entry.task or "", entry.metric or "", f"{entry.documents:,}", size, used)
    console().print(table)


def print_size(answer: "CacheSize") -> None:
    """How much is kept, in a line."""
    from rich.filesize import decimal

    held = f"{answer.documents:,} results in {answer.entries:,} entries"
    console().print(f"{answer.path}: {decimal(answer.bytes)}, {held}", soft_wrap=True)


def print_pruned(answer: "CachePrune") -> None:
    """How many entries are gone, in a line."""
    verb = "would be removed" if answer.dry_run else "removed"
    console().print(f"{len(answer.removed):,} entries {verb}, {answer.kept:,} kept.", soft_wrap=True)


def print_problems(answer: "CacheChecks") -> None:
    """What is wrong, and what to do about it."""
    if answer.damage is not None:
        console().print(f"{answer.path} is damaged: {answer.damage}", soft_wrap=True)
        console().print("Delete it; what it held will be scored again.")
    for entry in answer.problems:
        console().print(f"{_name(entry)} on {entry.task or ''}: {entry.problem}", soft_wrap=True)
    if answer.problems:
        console().print("Remove these by `kinship cache prune --broken`.")
    if answer.ok:
        console().print(f"All {answer.entries:,} entries are sound.")


def _name(entry: "CachedScore") -> str:
    return entry.model or entry.key[:12]
