"""The application on a socket."""

import socket
from collections.abc import Callable
from dataclasses import replace

import uvicorn

from kinship.errors import InvalidConfig
from service.http.app import create_app
from service.http.settings import ServiceSettings
from service.http.wire import Wire

BACKLOG = 256


class Server(uvicorn.Server):
    """Serves a workspace until it is told to stop; ``ready`` is told of the settings once it answers.

    It listens from the beginning, so that the port is known, and another one's is refused: raises `InvalidConfig`.
    """

    def __init__(self, settings: ServiceSettings, ready: Callable[[ServiceSettings], None]) -> None:
        self._socket = listen(settings.host, settings.port)
        self.settings = replace(settings, port=self._socket.getsockname()[1])
        self._ready = ready
        try:
            app = create_app(self.settings)
            app.state.backend.hold()
        except BaseException:
            self._socket.close()
            raise
        super().__init__(
            uvicorn.Config(
                app, access_log=False, log_level="warning", server_header=False, timeout_graceful_shutdown=2,
                h11_max_incomplete_event_size=32 << 10, http=Wire, ws="none", timeout_keep_alive=30,
            )
        )  # fmt: skip

    def serve_all(self) -> None:
        """Serve until a signal, or `should_exit`."""
        self.run(sockets=[self._socket])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self.started:
            self._ready(self.settings)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes one that is free. Raises `InvalidConfig` where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        raise InvalidConfig(
            f"Nothing can listen at {host}, port {port}: {error.strerror or error}.",
            hint="Choose another --port; 0 takes one that is free.",
        ) from None
    return listening
