"""A thread beside the caller's, on another processor where there is one."""

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, ParamSpec, TypeVar

ToolsT = TypeVar("ToolsT")
ResultT = TypeVar("ResultT")
Given = ParamSpec("Given")


class Helper(Generic[ToolsT]):
    """A thread and the tools that it alone works with, so that they stay in its processor's cache.

    Linux looks for an idle processor only while the machine has little to do. On two cores a woken thread is
    often put behind the one that woke it, and helps nobody: the work then takes longer than without it. So
    the thread is kept off the processor of whoever hands it work.
    """

    def __init__(self, tools: ToolsT) -> None:
        self.tools = tools
        self._thread = ThreadPoolExecutor(1, "detect")
        self._id = self._thread.submit(threading.get_native_id).result()
        self._kept_off: int | None = None

    def submit(
        self, work: Callable[Given, ResultT], *arguments: Given.args, **named: Given.kwargs
    ) -> Future[ResultT]:
        """Have the thread do `work`. One caller at a time."""
        here = _processor()
        if here is not None and here != self._kept_off:
            self._keep_off(here)
        return self._thread.submit(work, *arguments, **named)

    def _keep_off(self, processor: int) -> None:
        self._kept_off = processor
        if others := os.sched_getaffinity(0) - {processor}:
            with suppress(OSError):  # none of them is left to this process: the thread stays where it is
                os.sched_setaffinity(self._id, others)


def _asker() -> Callable[[], int | None]:
    """What says on which processor its caller runs, or None where the system does not tell."""
    if hasattr(os, "sched_setaffinity"):
        with suppress(AttributeError):
            # PyDLL keeps the interpreter's lock: to give it up for so short a call would cost more than it.
            known: Callable[[], int] = ctypes.PyDLL(None).sched_getcpu
            return known
    return lambda: None


_processor = _asker()
