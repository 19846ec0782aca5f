"""Requests that happen once, however often a client that lost the answer sends them."""

import hashlib
from typing import Annotated

from fastapi import Depends, Header, Request
from starlette.responses import Response

from service.answers.jobs import Job

KEY = Header(
    min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$",
    description="Sent again with the same body, the request is answered with the job that there is.",
)  # fmt: skip


async def _once(request: Request, idempotency_key: Annotated[str | None, KEY] = None) -> tuple[str | None, str | None]:
    """The key of a request, and what it asks for."""
    if idempotency_key is None:
        return None, None
    asked = f"{request.method} {request.url.path}\n".encode() + await request.body()
    return idempotency_key, hashlib.blake2b(asked, digest_size=16).hexdigest()


Once = Annotated[tuple[str | None, str | None], Depends(_once)]


def accepted(job: Job) -> Response:
    """202: the job that does it, and where it is told of."""
    headers = {"Location": f"/api/v1/jobs/{job.id}"}
    return Response(job.to_json(indent=None), 202, headers, "application/json")
