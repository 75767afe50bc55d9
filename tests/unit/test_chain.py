"""One piece of work after another, across threads."""

from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Event

import pytest

from app.api.chain import then

LIMIT = 60.0


def test_the_second_gets_what_the_first_found() -> None:
    with ThreadPoolExecutor(1) as pool:
        whole = then(pool.submit(lambda: 20), lambda found: pool.submit(lambda: found + 1))
        assert whole.result(LIMIT) == 21


def test_an_error_of_either_ends_the_whole() -> None:
    broken: Future[int] = Future()
    broken.set_exception(ValueError("first"))
    with pytest.raises(ValueError, match="first"):
        then(broken, lambda _: broken).result(LIMIT)
    done: Future[int] = Future()
    done.set_result(1)
    second: Future[int] = Future()
    second.set_exception(ValueError("second"))
    with pytest.raises(ValueError, match="second"):
        then(done, lambda _: second).result(LIMIT)

    def refuse(_: int) -> "Future[int]":
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        then(done, refuse).result(LIMIT)


def test_cancelling_reaches_what_has_not_begun() -> None:
    first: Future[int] = Future()
    second: Future[int] = Future()
    assert then(first, lambda _: second).cancel()
    assert first.cancelled()
    done: Future[int] = Future()
    done.set_result(1)
    assert then(done, lambda _: second).cancel()
    assert second.cancelled()


def test_what_runs_when_it_is_cancelled_starts_nothing_more() -> None:
    begun, go, started = Event(), Event(), Event()

    def look() -> int:
        begun.set()
        assert go.wait(LIMIT)
        return 1

    def follow(_: int) -> "Future[int]":
        started.set()
        return Future()

    with ThreadPoolExecutor(1) as pool:
        whole = then(pool.submit(look), follow)
        assert begun.wait(LIMIT)
        assert whole.cancel()
        go.set()
    with pytest.raises(CancelledError):
        whole.result(LIMIT)
    assert not started.is_set()
