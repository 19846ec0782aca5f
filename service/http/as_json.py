"""Every page as JSON: to whoever asks for that and not for HTML, its address answers what the API says of it."""

import re
from collections.abc import Sequence
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A page, what its query must name, and the address below the API that has what the page shows.
PAGES: Sequence[tuple[str, Sequence[str], str]] = (
    (r"/", (), "/runs"),
    (r"/runs/([^/]+)", (), r"/runs/\1"),
    (r"/runs/([^/]+)/individuals/([^/]+)", (), r"/runs/\1/individuals/\2"),
    (r"/compare", ("run",), "/compared-runs"),
    (r"/compare", (), "/runs"),
    (r"/methods", (), "/comparisons"),
    (r"/methods/([^/]+)", (), r"/comparisons/\1"),
    (r"/trees", ("run",), "/runs/{}/lineage"),
    (r"/(?:trees|kinship|scores)", ("job",), "/jobs/{}/result"),
    (r"/trees", ("model",), "/trees"),
    (r"/kinship", ("base", "model"), "/kinship/matrices"),
    (r"/kinship", ("base", "more"), "/kinship/matrices"),
    (r"/merge", ("run", "individual"), "/runs/{}/individuals/{}/recipe"),
    (r"/models", ("reference",), "/models/facts"),
    (r"/(?:trees|kinship|merge|scores|models)", (), "/models"),
    (r"/jobs", (), "/jobs"),
    (r"/jobs/([0-9]+)", (), r"/jobs/\1"),
    (r"/new(?:/methods)?", (), "/openapi.json"),  # the schemas of a run, and of a plan
)


class AsJson:
    """Sends such requests to the API under ``prefix``."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        found = address_of(scope["path"], scope["query_string"].decode("latin-1"))
        if found is not None and _wants_json(Headers(scope=scope).get("accept", "")):
            scope = dict(scope, path=self._prefix + found)
        await self._app(scope, receive, send if found is None else _varying(send))


def address_of(path: str, query: str = "") -> str | None:
    """Where the API tells what a page shows; None for what is no page.

    >>> address_of("/runs/first"), address_of("/trees", "run=first"), address_of("/runs/first/live")
    ('/runs/first', '/runs/first/lineage', None)
    """
    given = parse_qs(query)
    for page, needed, place in PAGES:
        match = re.fullmatch(page, path)
        if match and all(name in given for name in needed):
            return match.expand(place) if not needed else place.format(*(given[name][0] for name in needed))
    return None


def _wants_json(accept: str) -> bool:
    return "application/json" in accept and "text/html" not in accept


def _varying(send: Send) -> Send:
    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"vary", b"Accept")]
        await send(message)

    return told
