"""What is new in runs, for any number of listeners: each run's ledger is asked once for all of them."""

import asyncio
import logging
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from fastapi.sse import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from kinship.errors import DatabaseUnavailable, KinshipError
from service.answers.served import RunEvent
from service.http.backend import MOST_EVENTS, Backend
from service.http.workspace import RunPlace

log = logging.getLogger("kinship.service")

SECONDS = 0.5  # between two looks at a ledger that somebody listens to
KEPT = 2000  # the latest events of a run, which stay in memory: those who come are told them without another look


Line = tuple[int, ServerSentEvent]
"""An event as every listener gets it, with its number."""


@dataclass
class Feed:
    """One run's events as they come. Belongs to the event loop's thread."""

    backend: Backend
    run: str
    listeners: int = 0
    _tail: list[Line] = field(default_factory=list)
    _from: int = 0  # the tail has every event from this one, without it, to
    _seen: int = 0  # this one
    _ready: asyncio.Event = field(default_factory=asyncio.Event)
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _over: bool = False

    async def follow(self, after: int) -> AsyncIterator[ServerSentEvent]:
        """Every event after the one of that number: those on record, then those to come; none twice.

        A number that the run has not come to yet counts as its last one. Ends where the ledger cannot be read.
        """
        await self._ready.wait()
        after = min(after, self._seen)
        while not self._over:
            more = self._more
            if after >= self._from:
                new = self._tail[bisect_right(self._tail, after, key=_number) :]
            else:
                new = _lines((await run_in_threadpool(self.backend.events, self.run, after)).events)
            for number, event in new:
                yield event
                after = number
            if not new:
                if after >= self._seen:
                    await more.wait()
                after = max(after, self._from)

    async def watch(self) -> None:
        """Look for what is new until nobody listens any more."""
        try:
            place, state = self.backend.workspace.run(self.run), None
            last = await run_in_threadpool(self.backend.last_event, self.run)
            self._from = self._seen = max(0, last - KEPT)
            while True:
                now = await run_in_threadpool(_state, place)
                if now != state:
                    with suppress(DatabaseUnavailable):  # it may come back, and browsers ask an error but once
                        found = await run_in_threadpool(self.backend.events, self.run, self._seen)
                        self._add(found.events)
                        if len(found.events) == MOST_EVENTS:
                            continue
                        state = now
                        self._ready.set()
                await asyncio.sleep(SECONDS)
        except KinshipError as error:  # whoever comes again is told
            log.info("The run %s is followed no more: %s", self.run, error.message)
        finally:
            self._over = True
            self._ready.set()
            self._more.set()

    def _add(self, events: Sequence[RunEvent]) -> None:
        if not events:
            return
        self._tail += _lines(events)
        self._seen = events[-1].id
        if len(self._tail) > 2 * KEPT:
            self._from = self._tail[-KEPT - 1][0]
            del self._tail[:-KEPT]
        self._more, past = asyncio.Event(), self._more
        past.set()


def _lines(events: Sequence[RunEvent]) -> list[Line]:
    return [
        (event.id, ServerSentEvent(raw_data=event.to_json(indent=None), event=event.name, id=str(event.id)))
        for event in events
    ]


def _number(line: Line) -> int:
    return line[0]


def _state(place: RunPlace) -> tuple[object, ...]:
    return place.state


@dataclass
class Feeds:
    """A feed for each run that somebody listens to."""

    backend: Backend
    _feeds: dict[str, tuple[Feed, "asyncio.Task[None]"]] = field(default_factory=dict)

    async def follow(self, run: str, after: int) -> AsyncIterator[ServerSentEvent]:
        """See `Feed.follow`; ends where the ledger can no longer be read."""
        if run not in self._feeds:
            feed = Feed(self.backend, run)
            self._feeds[run] = feed, asyncio.create_task(feed.watch())
        feed, task = self._feeds[run]
        feed.listeners += 1
        try:
            async for event in feed.follow(after):
                yield event
        finally:
            feed.listeners -= 1
            if not feed.listeners or task.done():
                if run in self._feeds and self._feeds[run][0] is feed:
                    del self._feeds[run]
                task.cancel()
