"""Writes that may be repeated: the same `Idempotency-Key` gives the same answer and one effect."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio.to_thread
from pydantic import BaseModel
from starlette.responses import Response

from sphereid.api.problems import Problem
from sphereid.gallery.audit import current_actor
from sphereid.gallery.service import GalleryService
from sphereid.gallery.types import StoredAnswer
from sphereid.gallery.writes import Keyed

T = TypeVar("T")

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


class KeyedLocks:
    """One lock a key, kept only while somebody holds it or waits for it. For one event loop."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Be alone with `key`."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = lock, users - 1


class Once:
    """Runs a request's write, or repeats the answer that its `Idempotency-Key` got before.

    Only successful answers are remembered: after an error the same key may try again.
    """

    def __init__(self, target: str, key: str | None, gallery: GalleryService, locks: KeyedLocks) -> None:
        """target: method and path of the request. key: its `Idempotency-Key`. Raises Problem."""
        if key is not None and not _KEY.fullmatch(key):
            raise Problem("invalid_request", "Idempotency-Key: 1 to 255 visible ASCII characters")
        # Whoever knows another client's key must not get its answers, so each has names of its own.
        owner = current_actor().name
        self._key = None if key is None else hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()
        self._target = target.encode()
        self._gallery = gallery
        self._locks = locks

    async def __call__(
        self, content: bytes, write: Callable[[], Awaitable[BaseModel]], status: int = 200
    ) -> Response:
        """The answer of a write outside of the gallery, such as a job; it is stored after the write.

        content: what, beside method and address, makes the request.
        """
        return await self.stored(content, lambda _: write(), lambda shown: shown, status)

    async def stored(
        self,
        content: bytes,
        write: Callable[[Keyed[T] | None], Awaitable[T]],
        show: Callable[[T], BaseModel],
        status: int = 200,
    ) -> Response:
        """The answer of a write to the gallery, which runs unless its key was seen.

        The write stores what `show` makes of its result with its own rows, so that a process that dies before
        it has answered repeats nothing. What is known only afterwards, such as the time it took, takes the
        place of that answer then.
        """
        if self._key is None:
            return answer(show(await write(None)), status)
        key, kept = self._key, b""
        fingerprint = hashlib.sha256(self._target + b"\0" + content).hexdigest()

        def render(result: T) -> StoredAnswer:
            nonlocal kept
            kept = _json(show(result))
            return StoredAnswer(status, kept)

        async with self._locks.hold(key):
            known = await anyio.to_thread.run_sync(self._gallery.recall, key, fingerprint)
            if known is not None:
                headers = {"Idempotent-Replayed": "true"}
                return Response(known.body, known.status, headers, media_type="application/json")
            body = _json(show(await write(Keyed(key, fingerprint, render))))
            if body != kept:
                final = StoredAnswer(status, body)
                await anyio.to_thread.run_sync(self._gallery.remember, key, fingerprint, final)
            return Response(body, status, media_type="application/json")


def threaded(write: Callable[[Keyed[T] | None], T]) -> Callable[[Keyed[T] | None], Awaitable[T]]:
    """A write that blocks, for `Once.stored`: it runs in a worker thread."""
    return lambda keyed: anyio.to_thread.run_sync(write, keyed)


def answer(model: BaseModel, status: int = 200) -> Response:
    """A JSON response of a model; it was checked when it was made and is not checked again."""
    return Response(_json(model), status, media_type="application/json")


def _json(model: BaseModel) -> bytes:
    return model.model_dump_json().encode()
