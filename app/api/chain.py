"""Work that goes on from thread to thread without waking the event loop in between."""

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TypeVar

FirstT = TypeVar("FirstT")
LastT = TypeVar("LastT")


def then(first: "Future[FirstT]", go_on: "Callable[[FirstT], Future[LastT]]") -> "Future[LastT]":
    """The result of what `go_on` starts with the result of `first`, in the thread that came to it.

    An error of either is that of the whole. Cancelling the whole cancels what has not begun yet.
    """
    whole: Future[LastT] = Future()

    def started(done: "Future[FirstT]") -> None:
        if whole.cancelled():
            return
        try:
            last = go_on(done.result())
        except (Exception, CancelledError) as error:
            _fail(whole, error)
            return
        whole.add_done_callback(lambda _: last.cancel())
        last.add_done_callback(ended)

    def ended(done: "Future[LastT]") -> None:
        try:
            result = done.result()
        except (Exception, CancelledError) as error:
            _fail(whole, error)
        else:
            if whole.set_running_or_notify_cancel():
                whole.set_result(result)

    whole.add_done_callback(lambda _: first.cancel())
    first.add_done_callback(started)
    return whole


def _fail(whole: "Future[LastT]", error: BaseException) -> None:
    if whole.set_running_or_notify_cancel():
        whole.set_exception(error)
