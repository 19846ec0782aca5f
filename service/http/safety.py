"""Who may ask: the middleware that stands before every route, and what it sends with every response.

Loopback is not trusted by itself: a page of any site may be open in a browser beside the server. So the Host header
must name the server, writes must not come from another site, and where there is a token everybody shows it.
"""

import asyncio
import hashlib
import hmac
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.errors import failed
from service.http.settings import SENT, ServiceSettings

READS = frozenset({"GET", "HEAD", "OPTIONS"})
COOKIE = "kinship_token"


class Guard:
    """Answers in place of ``app`` where a request is not to be trusted, and limits the bodies of the others."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._settings = settings
        self._cookie = _derived(settings.token) if settings.token else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SENT.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, with_headers)
            return
        await self._app(scope, _Body(receive, self._settings), with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _hostname(hosts[0]) not in self._settings.names:
            return failed(
                421, "This server is not called by the name in the Host header.", "Use the address that it printed."
            )
        return (
            self._without_token(scope, headers)
            or self._from_elsewhere(scope, headers, hosts[0])
            or _too_large(headers, self._settings)
        )

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        token = self._settings.token
        if token is None:
            return None
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return None if _same(shown.strip(), token) else _needs_token()
        if _same(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""), self._cookie):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if scope["method"] not in READS or len(given) != 1 or not _same(given[0], token):
            return _needs_token()
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        path = "/" + scope.get("raw_path", scope["path"].encode()).decode("latin-1").lstrip("/\\")
        response = RedirectResponse(path + (f"?{rest}" if rest else ""), 303)
        response.set_cookie(
            COOKIE, self._cookie, path="/", httponly=True, samesite="strict", secure=scope.get("scheme") == "https"
        )
        return response

    def _from_elsewhere(self, scope: Scope, headers: Headers, host: str) -> Response | None:
        """A browser says where a write comes from; other programs say nothing."""
        if scope["method"] in READS:
            return None
        sites, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
        if sites:
            own = all(site in {"same-origin", "none"} for site in sites)
        else:
            own = all(_netloc(origin) == host.lower() for origin in origins)
        return None if own else failed(403, "Another site may not write here.", "Use the server's own pages.")


class _Body:
    """``receive`` that ends a request whose body is too long, or does not come."""

    def __init__(self, receive: Receive, settings: ServiceSettings) -> None:
        self._receive = receive
        self._settings = settings
        self._size = 0
        self._whole = False
        self._until: float | None = None

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._whole:
            return await self._receive()
        loop = asyncio.get_running_loop()
        self._until = self._until or loop.time() + self._settings.body_seconds
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "The body of the request did not arrive in time.", CLOSE) from None
        self._size += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._size > self._settings.most_bytes:
            raise HTTPException(413, _large(self._settings), CLOSE)
        return message


CLOSE = {"Connection": "close"}


def _too_large(headers: Headers, settings: ServiceSettings) -> Response | None:
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length[:20]) <= settings.most_bytes:
        return None
    return failed(413, _large(settings), headers=CLOSE)


def _large(settings: ServiceSettings) -> str:
    return f"The body is larger than {settings.most_bytes:,} bytes."


def _needs_token() -> Response:
    hint = "Send `Authorization: Bearer TOKEN`, or open the address with ?token=TOKEN once."
    return failed(401, "This server wants its token, and this is not it.", hint, {"WWW-Authenticate": "Bearer"})


def _derived(token: str) -> str:
    """What the cookie holds: not the token itself."""
    return hmac.new(token.encode(), b"kinship cookie", hashlib.sha256).hexdigest()


def _same(shown: str, secret: str) -> bool:
    return hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), secret.encode())


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _hostname(host: str) -> str | None:
    """A Host header without its port; None for what is none.

    >>> _hostname("Lab:80"), _hostname("[::1]:8421"), _hostname("a@b"), _hostname("")
    ('lab', '::1', None, None)
    """
    if any(letter in host for letter in "@/?#\\ "):
        return None
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018  # raises ValueError for what is no number
    except ValueError:
        return None
    return parts.hostname
