"""`kinship serve`."""

import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.console import console, note

if TYPE_CHECKING:
    from service.http.settings import ServiceSettings


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
    """Listen first, so that what is printed is true, then serve until Ctrl-C."""
    from dataclasses import replace

    import uvicorn

    from service.http.app import create_app

    listening = _listen(settings.host, settings.port)
    settings = replace(settings, port=listening.getsockname()[1])
    app = create_app(settings)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                console().print(f"Serving {settings.folder} at {settings.address}", soft_wrap=True, markup=False)
                sys.stdout.flush()
                if open_page:
                    import webbrowser

                    webbrowser.open(settings.address)

    config = uvicorn.Config(
        app, access_log=False, log_level="warning", server_header=False, timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=32 << 10, http="h11", ws="none", timeout_keep_alive=30,
    )  # fmt: skip
    Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    from kinship.errors import InvalidConfig

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(256)
    except OSError as error:
        raise InvalidConfig(
            f"Nothing can listen at {host}, port {port}: {error.strerror or error}.",
            hint="Choose another --port; 0 takes one that is free.",
        ) from None
    return listening
