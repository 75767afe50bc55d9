"""Back-pressure: how many requests may be under way, and what becomes of them when their client goes."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from fastapi import APIRouter
from fastapi.params import Depends
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope

from sphereid.api.problems import Problem

T = TypeVar("T")

TOO_MANY: Final = "as many image requests as fit are under way; try again in a moment"


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
        if self.full:
            raise Problem("overloaded", TOO_MANY)
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1

    @property
    def full(self) -> bool:
        """Whether the next request would be refused."""
        return self.active >= self._limit


class Turnstile:
    """Refuses image requests before the framework looks at them, while the service is full.

    What is refused must cost next to nothing, or the refusing itself takes the time of those who were let in.
    """

    def __init__(self, admission: Admission, routers: Iterable[APIRouter], guard: Depends) -> None:
        """guard: the dependency that tells the routes that take a place."""
        self._admission = admission
        self._routes = [
            route
            for router in routers
            for route in router.routes
            if isinstance(route, APIRoute) and guard in route.dependencies
        ]

    def refuses(self, scope: Scope) -> bool:
        """Whether a request would get no place; names its route for the metrics."""
        if not self._admission.full:
            return False
        for route in self._routes:
            if scope["method"] in (route.methods or ()) and route.path_regex.match(scope["path"]):
                scope["route"] = route
                return True
        return False


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, or ClientDisconnect after cancelling it when the client closes the connection.

    The request's body must have been read.
    """
    me = asyncio.current_task()
    assert me is not None
    gone = waiting = False

    def left(watch: "asyncio.Task[None]") -> None:
        nonlocal gone
        if waiting and not watch.cancelled():
            gone = True
            me.cancel()

    watch = asyncio.ensure_future(_disconnected(request))
    watch.add_done_callback(left)
    waiting = True
    try:
        return await work
    except asyncio.CancelledError:
        if gone and not me.uncancel():  # else it was not we who cancelled, or not we alone
            raise ClientDisconnect from None
        raise
    finally:
        waiting = False
        watch.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
