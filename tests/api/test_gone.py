"""`until_gone`: the work's result, its error, a client that goes, and a cancellation from outside."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from sphereid.api.middleware.admission import until_gone
from starlette.requests import ClientDisconnect, Request


def request(gone: asyncio.Event) -> Request:
    async def receive() -> dict[str, str]:
        await gone.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


async def answer(work: Coroutine[Any, Any, int], *, leaves: bool = False) -> int:
    gone = asyncio.Event()
    if leaves:
        asyncio.get_running_loop().call_later(0.01, gone.set)
    return await until_gone(request(gone), work)


async def forever(ended: list[str]) -> int:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        ended.append("canceled")
        raise
    return 0


def test_result_and_error_come_through() -> None:
    async def result() -> int:
        return 7

    async def error() -> int:
        raise ValueError("wrong")

    assert asyncio.run(answer(result())) == 7
    with pytest.raises(ValueError, match="wrong"):
        asyncio.run(answer(error()))


def test_a_client_that_goes_cancels_the_work_and_nothing_else() -> None:
    ended: list[str] = []

    async def scenario() -> int:
        with pytest.raises(ClientDisconnect):
            await answer(forever(ended), leaves=True)
        await asyncio.sleep(0)  # whoever asked is not cancelled
        me = asyncio.current_task()
        assert me is not None
        return me.cancelling()

    assert asyncio.run(scenario()) == 0
    assert ended == ["canceled"]


def test_a_cancellation_from_outside_stays_one() -> None:
    ended: list[str] = []

    async def scenario() -> None:
        task = asyncio.create_task(answer(forever(ended)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert ended == ["canceled"]
