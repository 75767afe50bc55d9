"""Back-pressure: how many requests may be under way, and what becomes of them when their client goes."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from app.api.problems import Problem

T = TypeVar("T")


class Admission:
    """Counts the image requests under way, from before their body is read; refuses beyond a limit.

    Used from the event loop only, but `active` may be read from any thread.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.active = 0

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """A place among the requests under way; Problem `overloaded` when there is none."""
        if self.active >= self._limit:
            raise Problem("overloaded", f"{self.active} image requests are under way; try again in a moment")
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, or ClientDisconnect after cancelling it when the client closes the connection.

    The request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
