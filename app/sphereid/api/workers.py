"""Threads that carry out the work of requests, from the picture to the answer."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from time import perf_counter
from typing import Any, TypeVar

T = TypeVar("T")


class Call:
    """Somebody who waits for work to be done. asked: since when, seconds of `perf_counter`."""

    def __init__(self) -> None:
        self.asked = perf_counter()
        self.gone = False

    def wanted(self) -> bool:
        """Whether anybody still waits."""
        return not self.gone

    def check(self) -> None:
        """Raises CancelledError where nobody waits any more; for the places where work can end early."""
        if self.gone:
            raise CancelledError


class Workers:
    """A pool of threads that is asked from the event loop.

    All steps of a request run in one thread: each change of threads would wait for the interpreter, which the
    other threads want too.
    """

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, name)

    async def run(self, work: Callable[[Call], T]) -> T:
        """The result of `work` in a thread, in the caller's context. Where the caller is cancelled, work that
        has not begun never begins, and what runs ends at its next `Call.check`."""
        call = Call()
        context = contextvars.copy_context()  # which says who is acting
        future = self._pool.submit(context.run, work, call)
        try:
            return await asyncio.wrap_future(future)
        finally:
            call.gone = True

    def close(self) -> None:
        """Finish what runs. A second call does nothing."""
        self._pool.shutdown()


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of works that run beside each other; the first error ends the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
