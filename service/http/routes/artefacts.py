"""Files of runs and jobs, and their folders as tars: listed, and sent whole or by ranges."""

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from service.answers.served import Artefacts
from service.http import artefacts
from service.http.archives import Archive, archive, range_of
from service.http.backend import Asked
from service.http.errors import documented, failed
from service.http.replies import is_known, reply

router = APIRouter(tags=["artefacts"], responses=documented(404, 422))
Job = Annotated[int, InPath(ge=1, le=2**31 - 1)]
FILE = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
    206: {"description": "The range that was asked for."},
    400: {"description": "The range is none."},
    416: {"description": "The file has no such range."},
}
TAR = {
    200: {"content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}},
    206: {"description": "The range that was asked for."},
    416: {"description": "The archive has no such range."},
}


@router.get("/runs/{run}/artefacts", response_model=Artefacts)
def list_run_files(request: Request, run: str, backend: Asked) -> Response:
    """The files of a run: report, recipe of its best offspring, that as a model folder, pictures."""
    return reply(request, artefacts.list_files(artefacts.run_folder(backend, run)))


@router.get("/runs/{run}/artefacts/{path:path}", response_class=FileResponse, responses=FILE)  # type: ignore[arg-type]
def send_run_file(request: Request, run: str, path: str, backend: Asked) -> Response:
    """One of them."""
    return _sent(request, artefacts.find(artefacts.run_folder(backend, run), path))


@router.get("/jobs/{job}/artefacts", response_model=Artefacts)
def list_job_files(request: Request, job: Job, backend: Asked) -> Response:
    """The files that a job made."""
    return reply(request, artefacts.list_files(artefacts.job_folder(backend, job)))


@router.get("/jobs/{job}/artefacts/{path:path}", response_class=FileResponse, responses=FILE)  # type: ignore[arg-type]
def send_job_file(request: Request, job: Job, path: str, backend: Asked) -> Response:
    """One of them."""
    return _sent(request, artefacts.find(artefacts.job_folder(backend, job), path))


@router.get("/runs/{run}/archives/{folder:path}", response_class=StreamingResponse, responses=TAR)  # type: ignore[arg-type]
def send_run_folder(request: Request, run: str, folder: str, backend: Asked) -> Response:
    """A folder of a run as one tar, such as `best-offspring`."""
    place = artefacts.run_folder(backend, run)
    return _streamed(request, archive(place, folder, f"{place.name}-{Path(folder).name}.tar"))


@router.get("/jobs/{job}/archives/{folder:path}", response_class=StreamingResponse, responses=TAR)  # type: ignore[arg-type]
def send_job_folder(request: Request, job: Job, folder: str, backend: Asked) -> Response:
    """A folder that a job made as one tar, such as a merged model."""
    return _streamed(request, archive(artefacts.job_folder(backend, job), folder, f"{Path(folder).name}.tar"))


class _File(FileResponse):
    """A file whose ranges are refused in the one shape."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        refused: list[Message] = []

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in {400, 416}:
                refused.append(message)
            if not refused:
                await send(message)

        await super().__call__(scope, receive, told)
        if refused:
            size = Headers(raw=refused[0]["headers"]).get("content-range")
            headers = {"Content-Range": size} if size else None
            message = "The file has no such range."
            await failed(refused[0]["status"], message, "Ask for bytes=FIRST-LAST.", headers)(scope, receive, send)


def _sent(request: Request, file: Path) -> Response:
    kind = artefacts.type_of(file.name)
    how = "inline" if kind in artefacts.SHOWN else "attachment"
    headers = {"Cache-Control": "no-cache"}
    whole = _File(
        file, media_type=kind, filename=file.name, content_disposition_type=how, headers=headers,
        stat_result=file.stat(),
    )  # fmt: skip
    tag = whole.headers["etag"]
    return Response(status_code=304, headers=headers | {"ETag": tag}) if is_known(request, tag) else whole


def _streamed(request: Request, found: Archive) -> Response:
    """The archive, or the range of it that was asked for of just these contents."""
    tag = f'"{found.tag}"'
    headers = {
        "ETag": tag, "Cache-Control": "no-cache", "Accept-Ranges": "bytes",
        "Content-Disposition": f"attachment; filename*=utf-8''{quote(found.name, safe='')}",
    }  # fmt: skip
    if is_known(request, tag):
        return Response(status_code=304, headers=headers)
    asked = request.headers.get("range", "")
    try:
        part = range_of(asked, found.size) if request.headers.get("if-range", tag) == tag else None
    except ValueError:
        size = {"Content-Range": f"bytes */{found.size}"}
        return failed(416, "The archive has no such range.", "Ask for bytes=FIRST-LAST.", size)
    start, end = part or (0, found.size)
    headers["Content-Length"] = str(end - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size}"
    return StreamingResponse(found.parts(start, end), 200 if part is None else 206, headers, "application/x-tar")
