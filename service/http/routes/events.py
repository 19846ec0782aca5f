"""What happens in a run: its diary by pages, and as a stream that goes on where a client left off."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from service.answers.served import RunEvents
from service.http.backend import MOST_EVENTS, Asked
from service.http.errors import documented
from service.http.feeds import Feeds
from service.http.replies import reply

router = APIRouter(tags=["events"], responses=documented(404, 422))

LAST = 2**53  # beyond which a script's numbers are not whole
RETRY = 2000  # milliseconds after which a browser asks again

After = Annotated[int | None, Query(ge=0, le=LAST, description="The number of the last event that is known.")]


@router.get("/runs/{run}/events", response_model=RunEvents)
def list_events(
    request: Request,
    run: str,
    backend: Asked,
    after: After = None,
    most: Annotated[int, Query(ge=1, le=MOST_EVENTS)] = 100,
) -> Response:
    """What happened in it, in order."""
    return reply(request, backend.events(run, after or 0, most))


async def _known(run: str, backend: Asked) -> str:
    """That the run is there is found out before the stream begins."""
    await run_in_threadpool(backend.run, run)
    return run


@router.get("/runs/{run}/stream", response_class=EventSourceResponse)
async def follow_events(
    request: Request,
    run: Annotated[str, Depends(_known)],
    after: After = None,
    last_event_id: Annotated[int | None, Header(ge=0, le=LAST)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """The same as server-sent events, live; `Last-Event-ID` counts where a client comes again."""
    feeds: Feeds = request.app.state.feeds
    yield ServerSentEvent(comment="here", retry=RETRY)
    async for event in feeds.follow(run, last_event_id or after or 0):
        yield event
