"""`kinship serve`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.console import console, note

if TYPE_CHECKING:
    from service.http.settings import ServiceSettings

COLLECTED = 50_000  # new objects after which cycles are looked for: an answer is made of many, and has none


def serve(
    folder: Annotated[Path, typer.Argument(help="The workspace: runs and models, in and below it.")] = Path(),
    host: Annotated[str, typer.Option(help="Address to listen at; any but loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 8421,
    token: Annotated[
        str | None, typer.Option(envvar="KINSHIP_TOKEN", help="Everybody must show it.", show_default=False)
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Keep jobs and new runs in this Postgres database.", show_default=False),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="A further name that browsers call it by; may be repeated.")
    ] = None,
    models: Annotated[
        list[Path] | None, typer.Option(help="A further folder with models; may be repeated.", show_default=False)
    ] = None,
    slot: Annotated[
        list[str] | None, typer.Option(help="What a job runs on: cpu or cuda:N; may be repeated. Default: one cpu.")
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let runs use Python functions, commands and pickles.")
    ] = False,
) -> None:
    """Serve runs and models to browsers and scripts.

    Jobs go on when the server ends, and are found again when it is back.
    """
    from service.http.settings import ServiceSettings

    if database is not None and _has_password(database):
        note("the database's password can be seen by others in the list of processes: use PGPASSWORD or ~/.pgpass.")
    settings = ServiceSettings(
        folder=folder.absolute(), host=host, port=port, token=token, database=database, hosts=tuple(name or ()),
        roots=tuple(path.absolute() for path in models or ()), slots=tuple(slot or ("cpu",)), allow_code=allow_code,
    )  # fmt: skip
    _run(settings, open_page=open_page)


def _has_password(url: str) -> bool:
    from search.ledger.location import LedgerLocation

    return LedgerLocation.parse(url, "any").url.password is not None


def _run(settings: "ServiceSettings", *, open_page: bool) -> None:
    """Serve until Ctrl-C; what is printed is true when it is."""
    import gc
    import sys

    from service.http.serving import Server

    def tell(settings: "ServiceSettings") -> None:
        console().print(f"Serving {settings.folder} at {settings.address}", soft_wrap=True, markup=False)
        sys.stdout.flush()
        if open_page:
            import webbrowser

            webbrowser.open(settings.address)

    server = Server(settings, tell)
    gc.collect()
    gc.freeze()  # what was imported stays: looking through it again took a third of reading a large run
    gc.set_threshold(COLLECTED)
    server.serve_all()
