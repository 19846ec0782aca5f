"""Answers as responses: the object that ``--json`` prints, with an ETag by its content."""

import hashlib
from typing import Any

from fastapi import Request
from starlette.responses import Response

from kinship.outside import json_text
from service.answers.base import Part


def reply(request: Request, answer: Part, *, status: int = 200) -> Response:
    """``answer`` as JSON; 304 where the client has it already."""
    return reply_json(request, answer.content(), status=status)


def reply_json(request: Request, content: Any, *, status: int = 200) -> Response:
    """Plain data as JSON; 304 where the client has it already."""
    text = json_text(content).encode()
    headers = {"ETag": f'"{hashlib.blake2b(text, digest_size=12).hexdigest()}"', "Cache-Control": "no-cache"}
    if status == 200 and request.method in {"GET", "HEAD"} and _known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(text, status, headers, "application/json")


def _known(request: Request, tag: str) -> bool:
    given = [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]
    return tag in given or "*" in given
