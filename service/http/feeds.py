"""What is new in runs, for any number of listeners: each run's ledger is asked once for all of them."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool

from kinship.errors import KinshipError
from service.answers.served import RunEvent
from service.http.backend import MOST_EVENTS, Backend

log = logging.getLogger("kinship.service")

SECONDS = 0.5  # between two looks at a ledger that somebody listens to
KEPT = 2000  # events of a run that stay in memory


@dataclass
class Feed:
    """One run's events as they come. Belongs to the event loop's thread."""

    backend: Backend
    run: str
    listeners: int = 0
    _tail: deque[RunEvent] = field(default_factory=deque)
    _from: int = 0  # the tail has every event from this one, without it, to
    _seen: int = 0  # this one
    _ready: asyncio.Event = field(default_factory=asyncio.Event)
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _over: bool = False

    async def follow(self, after: int) -> AsyncIterator[RunEvent]:
        """Every event after the one of that number: those on record, then those to come; none twice.

        A number that the run has not come to yet counts as its last one. Ends where the ledger cannot be read.
        """
        await self._ready.wait()
        after = min(after, self._seen)
        while not self._over:
            more = self._more
            if after >= self._from:
                new = [event for event in self._tail if event.id > after]
            else:
                new = (await run_in_threadpool(self.backend.events, self.run, after)).events
            for event in new:
                yield event
                after = event.id
            if not new:
                if after >= self._seen:
                    await more.wait()
                after = max(after, self._from)

    async def watch(self) -> None:
        """Look for what is new until nobody listens any more."""
        try:
            place, state = self.backend.workspace.run(self.run), None
            self._from = self._seen = await run_in_threadpool(self.backend.last_event, self.run)
            self._ready.set()
            while True:
                now = place.state
                if now != state:
                    found = await run_in_threadpool(self.backend.events, self.run, self._seen)
                    self._add(found.events)
                    if len(found.events) < MOST_EVENTS:
                        state = now
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
        self._tail.extend(events)
        self._seen = events[-1].id
        while len(self._tail) > KEPT:
            self._from = self._tail.popleft().id
        self._more, past = asyncio.Event(), self._more
        past.set()


@dataclass
class Feeds:
    """A feed for each run that somebody listens to."""

    backend: Backend
    _feeds: dict[str, tuple[Feed, "asyncio.Task[None]"]] = field(default_factory=dict)

    async def follow(self, run: str, after: int) -> AsyncIterator[RunEvent]:
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
