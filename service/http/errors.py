"""Every failure in one shape, `service.answers.error.Error`, with the status that says whose fault it is."""

import logging
import traceback
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

from anyio import BrokenResourceError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnection
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kinship.errors import DatabaseUnavailable, KinshipError, OutputNotWritable, SystemRefused
from service.answers.error import Error
from service.http.settings import SENT
from service.jobs.errors import Conflict, NotFound, QueueFull, Refused
from service.known_errors import known_error

log = logging.getLogger("kinship.service")

# By kind of error; what is not here is input that cannot be used: 422.
STATUS: Mapping[type[KinshipError], int] = {
    NotFound: 404, Refused: 403, Conflict: 409, QueueFull: 429,
    DatabaseUnavailable: 503, SystemRefused: 503, OutputNotWritable: 503,
}  # fmt: skip
RETRY = {429: "30", 503: "5"}  # seconds after which it may be otherwise
CODES = {
    400: "bad_request", 401: "token_needed", 403: "refused", 404: "not_found", 405: "method_not_allowed",
    408: "too_slow", 409: "conflict", 413: "too_large", 415: "unsupported_media_type", 416: "range_not_satisfiable",
    421: "unknown_host", 422: "invalid_request", 429: "queue_full", 500: "internal_error",
    503: "database_unavailable",
}  # fmt: skip
ANYWHERE = (400, 401, 403, 405, 408, 413, 421, 422, 503)  # a request may end so on every route


def status_of(error: KinshipError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 422)


def failed(status: int, message: str, hint: str = "", headers: Mapping[str, str] | None = None) -> Response:
    """A response that tells of a failure."""
    return error_response(Error(code=CODES.get(status, "error"), message=message, hint=hint), status, headers)


def error_response(error: Error, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """``error`` as JSON."""
    again = {"Retry-After": RETRY[status]} if status in RETRY else {}
    return Response(error.to_json(indent=None), status, {**again, **(headers or {})}, "application/json")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that fails so."""
    return {status: {"model": Error, "description": HTTPStatus(status).phrase} for status in statuses}


def install(app: FastAPI) -> None:
    """Have every failure of ``app`` told so."""
    app.add_exception_handler(KinshipError, _of_input)
    app.add_exception_handler(RequestValidationError, _of_request)
    app.add_exception_handler(HTTPException, _of_http)
    for database in (DBAPIError, NoConnection):
        app.add_exception_handler(database, _of_database)
    for system in (OSError, MemoryError):
        app.add_exception_handler(system, _of_system)
    app.add_exception_handler(Exception, _of_program)
    app.add_middleware(_Listeners)


class _Listeners:
    """Who leaves while an event is on its way to him is no failure, though `fastapi.sse` raises one then."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            await self._app(scope, receive, send)
        except* BrokenResourceError:
            log.debug("Somebody who listened to %s left.", scope.get("path"))


def _of_input(_: Request, error: Exception) -> Response:
    error = cast(KinshipError, error)
    return error_response(Error.of(error), status_of(error))


def _of_request(_: Request, error: Exception) -> Response:
    problems = cast(RequestValidationError, error).errors()
    return failed(422, f"The request cannot be used: {_told(problems[0])}.", _more(problems))


def _told(problem: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {str(problem['msg']).rstrip('.')}"


def _more(problems: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(map(_told, problems[1:6])) or "/api/v1/openapi.json says what is expected."


def _of_http(_: Request, error: Exception) -> Response:
    error = cast(HTTPException, error)
    said = {
        404: ("There is nothing at this address.", "/api/v1/openapi.json lists every route."),
        405: ("This address does not answer to that method.", "/api/v1/openapi.json says which it answers to."),
    }
    default = HTTPStatus(error.status_code).phrase
    message, hint = said.get(error.status_code, (str(error.detail or default), ""))
    return failed(error.status_code, message, hint, error.headers)


def _of_database(_: Request, error: Exception) -> Response:
    log.error("The database of jobs failed: %s", error)
    reason = next(iter(str(getattr(error, "orig", error)).strip().splitlines()), type(error).__name__)
    return failed(503, f"The database of jobs cannot be used just now: {reason}.", "See to it; then ask again.")


def _of_system(request: Request, error: Exception) -> Response:
    """A full disk, a folder that is gone: nothing that a request could mend, and no bug."""
    known = known_error(error)
    log.error("%s %s failed:\n%s", request.method, request.url.path, "".join(traceback.format_exception(error)))
    return _of_program(request, error) if known is None else _of_input(request, known)


def _of_program(_: Request, error: Exception) -> Response:
    return failed(500, "The server failed at this; that is a bug.", "Its log has the traceback.", SENT)
