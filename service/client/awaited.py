"""The client to be awaited."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

from service.answers.export import Individual
from service.answers.served import RunEvent
from service.client.acting import Client


class AsyncClient:
    """The methods of `Client`, to be awaited; `events` and `individuals` are iterated by ``async for``.

    Each call is made in a thread of its own, so that one place says how things are asked.
    """

    def __init__(self, address: str, token: str | None = None, *, timeout: float = 30.0) -> None:
        self._client = Client(address, token, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._client.close)

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._client, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            return await asyncio.to_thread(asked, *arguments, **options)

        return call

    async def events(self, run: str, after: int = 0, *, until: str | None = None) -> AsyncIterator[RunEvent]:
        """See `Client.events`."""
        async for event in _in_threads(self._client.events(run, after, until=until)):
            yield event

    async def individuals(self, run: str, **query: Any) -> AsyncIterator[Individual]:
        """See `Client.individuals`."""
        async for individual in _in_threads(self._client.individuals(run, **query)):
            yield individual


async def _in_threads(items: Iterator[Any]) -> AsyncIterator[Any]:
    over = object()
    while (item := await asyncio.to_thread(next, items, over)) is not over:
        yield item
