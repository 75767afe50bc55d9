"""Workers: work of a caller who goes away never begins, or ends early."""

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest
from sphereid.api.workers import Call, Workers, together
from sphereid.gallery.audit import acting, current_actor

LIMIT = 20.0


@pytest.fixture
def workers() -> Workers:
    return Workers(1, "work")


def test_work_runs_in_a_thread_and_in_the_name_of_whoever_asked(workers: Workers) -> None:
    async def ask() -> tuple[str, bool]:
        with acting("key:12345678", "request-1"):
            return await workers.run(
                lambda _: (current_actor().name, threading.current_thread() is threading.main_thread())
            )

    assert asyncio.run(ask()) == ("key:12345678", False)
    workers.close()


def test_errors_come_to_whoever_asked(workers: Workers) -> None:
    def fail(_: Call) -> None:
        raise ValueError("no such luck")

    with pytest.raises(ValueError, match="luck"):
        asyncio.run(workers.run(fail))
    workers.close()


def test_who_goes_ends_what_runs_and_what_waits(workers: Workers) -> None:
    entered, leave = threading.Event(), threading.Event()
    ended: list[str] = []

    def first(call: Call) -> None:
        entered.set()
        assert leave.wait(LIMIT)
        try:
            call.check()
        except CancelledError:
            ended.append("early")
            raise
        ended.append("late")

    async def scenario() -> None:
        running = asyncio.create_task(workers.run(first))
        assert await asyncio.to_thread(entered.wait, LIMIT)
        waiting = asyncio.create_task(workers.run(lambda _: ended.append("never")))
        await asyncio.sleep(0)
        for task in (running, waiting):
            task.cancel()
        assert all(
            isinstance(e, asyncio.CancelledError)
            for e in await asyncio.gather(running, waiting, return_exceptions=True)
        )
        leave.set()

    asyncio.run(scenario())
    workers.close()
    assert ended == ["early"]


def test_the_first_error_ends_the_others() -> None:
    async def scenario() -> list[str]:
        seen: list[str] = []

        async def patient() -> None:
            try:
                await asyncio.sleep(LIMIT)
            except asyncio.CancelledError:
                seen.append("canceled")
                raise

        async def hasty() -> None:
            await asyncio.sleep(0)
            raise ValueError("hasty")

        with pytest.raises(ValueError, match="hasty"):
            await together([patient(), hasty()])
        return seen

    assert asyncio.run(scenario()) == ["canceled"]
