"""HTTP on a connection: uvicorn's, but what is no request is told so in our shape, and heads must come in time."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.http.errors import failed
from service.http.settings import SENT

HEAD_SECONDS = 20.0  # for the first line and the headers of a request, however slowly they come


class Wire(H11Protocol):
    """One connection."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._expect_head()
        else:
            self._expect_nothing()

    def send_400_response(self, msg: str) -> None:
        """See uvicorn."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:  # else an answer is on its way already
            told = failed(400, "That is no HTTP request.", msg, SENT | {"Connection": "close"})
            parts: tuple[Any, ...] = (
                h11.Response(status_code=400, headers=told.raw_headers, reason=b"Bad Request"),
                h11.Data(data=bytes(told.body)),
                h11.EndOfMessage(),
            )
            for part in parts:
                self.transport.write(self.conn.send(part) or b"")
        self.transport.close()

    def _expect_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _expect_nothing(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
