"""The ``kinship runs`` commands."""

from pathlib import Path
from typing import Annotated

import typer

from service.console import Force, Json

runs_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look into the ledgers of runs.")

RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="Folder of a run; in a database, URL#NAME.", show_default=False)
]


@runs_app.command("list")
def runs_list(
    where: Annotated[str, typer.Argument(help="A folder, with all below; or the URL of a database.")] = ".",
    as_json: Json = False,
) -> None:
    """The runs in and below a folder, or in a database."""
    from service.commands.runs import list_runs

    list_runs(where, as_json=as_json)


@runs_app.command("show")
def runs_show(
    run: RunName,
    failures: Annotated[bool, typer.Option("--failures", help="What failed, with tracebacks, instead.")] = False,
    as_json: Json = False,
) -> None:
    """The individuals of a run, best first."""
    from service.commands.runs import show

    show(run, failures=failures, as_json=as_json)


@runs_app.command("export")
def runs_export(
    run: RunName,
    full: Annotated[bool, typer.Option("--full", help="All that there is, for import: every document, too.")] = False,
) -> None:
    """Print the canonical export: equal runs give equal bytes."""
    from service.commands.runs import export

    export(run, full=full)


@runs_app.command("import")
def runs_import(
    file: Annotated[Path, typer.Argument(metavar="FULL.json", help="What export --full printed.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder of the run, to be made.", show_default=False)],
    ledger: Annotated[
        str | None, typer.Option(metavar="URL#NAME", help="Put it into this Postgres database.", show_default=False)
    ] = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Rebuild a run from its full export."""
    from service.commands.runs import import_run

    import_run(file, out, ledger, as_json=as_json, force=force)


@runs_app.command("verify")
def runs_verify(run: RunName, as_json: Json = False) -> None:
    """Check a run: keys, genomes, scores against documents, and that it can be gone on with.

    Exit code 1 where something is wrong.
    """
    from service.commands.runs import verify

    if not verify(run, as_json=as_json):
        raise typer.Exit(1)


@runs_app.command("compare")
def runs_compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Folders of runs, or URL#NAME.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Several runs side by side: what each found, at what cost, and the winners against the first run's winner.

    Winners are compared document by document, where both were scored on the same ones.
    """
    from service.commands.compare import compare_runs

    compare_runs(runs, as_json=as_json)
