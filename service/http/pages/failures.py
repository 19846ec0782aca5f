"""Failures as pages, for whoever asks for HTML; the same words as the API's."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from service.answers.error import Error
from service.http.pages.rendering import page

Handler = Callable[[Request, Exception], Response | Awaitable[Response]]


def install(app: FastAPI) -> None:
    """Wrap the handlers that ``app`` has: the addresses of the API, and who wants JSON, still get those."""
    for kind, handler in list(app.exception_handlers.items()):
        app.add_exception_handler(kind, _as_page(handler))


def _as_page(handler: Any) -> Handler:
    async def told(request: Request, error: Exception) -> Response:
        given = handler(request, error)
        response: Response = await given if isawaitable(given) else given
        if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
            return response
        said = Error.model_validate_json(bytes(response.body))
        template = "notice" if "hx-request" in request.headers else "failure"
        return page(template, "", status=response.status_code, error=said, number=response.status_code)

    return told
