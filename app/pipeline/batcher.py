"""Micro-batching: the aligned crops of concurrent requests go through the embedder together.

A network costs less per crop in a batch than alone, and a service sees many requests with one or two crops.
One thread owns the embedder's turn: it gathers crops until a batch is full or the oldest request has waited
long enough, and hands every request its own rows back. What arrives while a batch runs joins the next one.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np

from app.pipeline.errors import PipelineError
from app.pipeline.ports import FaceEmbedder
from app.pipeline.types import Face, FloatArray, RGBImage


class QueueFullError(PipelineError):
    """More crops wait than the queue may hold; try again in a moment."""

    code = "overloaded"


class BatcherClosedError(PipelineError):
    """The batcher is shutting down and takes nothing more."""

    code = "shutting_down"


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What one batch was. crops: how many it held; requests: of how many requests; waited: seconds that the
    oldest of its requests had been in the queue."""

    crops: int
    requests: int
    waited: float


@dataclass(slots=True, eq=False)
class _Ticket:
    """One request's crops on their way. taken: handed out so far; done: embedded so far."""

    crops: RGBImage
    vectors: FloatArray
    arrived: float
    future: "Future[FloatArray]" = field(default_factory=Future)
    taken: int = 0
    done: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """The part of a batch that belongs to one ticket: its crops [start, stop)."""

    ticket: _Ticket
    start: int
    stop: int


class FairQueue:
    """Waiting tickets, served in turns of one crop each. Not thread-safe by itself.

    A photograph with fifty faces takes its turn like everybody else, so a portrait that arrives behind it is
    in the next batch.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Ticket] = deque()
        self._crops = 0

    def __len__(self) -> int:
        """Crops that were not handed out yet, those of cancelled requests included until they are met."""
        return self._crops

    def push(self, ticket: _Ticket) -> None:
        """Let a ticket wait for its turns."""
        self._waiting.append(ticket)
        self._crops += len(ticket.crops) - ticket.taken

    def oldest(self) -> float | None:
        """Arrival of the longest-waiting ticket, None when nobody waits."""
        return min((ticket.arrived for ticket in self._waiting), default=None)

    def drop_finished(self) -> None:
        """Forget the tickets whose callers gave up or whose first crops failed already."""
        if any(ticket.future.done() for ticket in self._waiting):
            self._waiting = deque(t for t in self._waiting if not t.future.done())
            self._crops = sum(len(t.crops) - t.taken for t in self._waiting)

    def take(self, limit: int) -> list[Share]:
        """Hand out up to `limit` crops, one a ticket and turn, as one contiguous share a ticket."""
        self.drop_finished()
        counts: dict[_Ticket, int] = {}
        for _ in range(min(limit, self._crops)):
            ticket = self._waiting.popleft()
            counts[ticket] = counts.get(ticket, 0) + 1
            ticket.taken += 1
            if ticket.taken < len(ticket.crops):
                self._waiting.append(ticket)
        self._crops -= sum(counts.values())
        return [Share(ticket, ticket.taken - count, ticket.taken) for ticket, count in counts.items()]


class MicroBatcher:
    """A `FaceEmbedder` that lets concurrent callers share batches. Thread-safe.

    `submit` returns a future at once, `embed` waits for it. Cancelling a future takes its crops out of the
    queue. An error of the embedder hits only the request that caused it: a failing batch is repeated request
    by request.
    """

    def __init__(
        self,
        embedder: FaceEmbedder,
        *,
        max_batch: int = 32,
        max_wait: float = 0.002,
        max_queue: int = 512,
        more_expected: Callable[[], bool] = lambda: True,
        on_batch: Callable[[BatchReport], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """max_batch: crops a batch. max_wait: seconds that a request waits for company, 0 for none.

        max_queue: crops that may wait; one request may pass it when nobody else waits, or a picture with more
        faces could never be served. more_expected: False says that waiting for company is pointless now.
        on_batch: called after each batch from the batching thread. clock: seconds, monotonic.
        """
        if max_batch < 1 or max_queue < 1 or max_wait < 0:
            raise ValueError("max_batch and max_queue must be at least 1, max_wait at least 0")
        self._embedder: Final = embedder
        self._max_batch: Final = max_batch
        self._max_wait: Final = max_wait
        self._max_queue: Final = max_queue
        self._more_expected: Final = more_expected
        self._on_batch: Final = on_batch
        self._clock: Final = clock
        self._queue = FairQueue()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="embed-batches", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The embedder's name."""
        return self._embedder.name

    @property
    def contract(self) -> str:
        """The embedder's contract."""
        return self._embedder.contract

    @property
    def dim(self) -> int:
        """Length D of an embedding."""
        return self._embedder.dim

    @property
    def waiting(self) -> int:
        """Crops in the queue now."""
        with self._wake:
            return len(self._queue)

    def align(self, image: RGBImage, faces: Sequence[Face]) -> RGBImage:
        """(N, H, W, 3) uint8 RGB crops of `faces`, as the embedder aligns them."""
        return self._embedder.align(image, faces)

    def embed(self, crops: RGBImage) -> FloatArray:
        """(N, D) float32 rows of L2 norm 1; waits for its batch. Raises what `submit` and
        the embedder raise."""
        return self.submit(crops).result()

    def submit(self, crops: RGBImage) -> "Future[FloatArray]":
        """A future of the (N, D) float32 embeddings of (N, H, W, 3) uint8 crops; N may be 0.

        Raises QueueFullError when too many crops wait already, BatcherClosedError after `close`.
        """
        vectors = np.empty((len(crops), self.dim), dtype=np.float32)
        ticket = _Ticket(crops=crops, vectors=vectors, arrived=self._clock())
        with self._wake:
            if self._closed:
                raise BatcherClosedError("the service is shutting down")
            if not len(crops):
                ticket.future.set_result(vectors)
                return ticket.future
            self._queue.drop_finished()
            if len(self._queue) and len(self._queue) + len(crops) > self._max_queue:
                raise QueueFullError(f"{len(self._queue)} faces wait for the embedder already; try again")
            self._queue.push(ticket)
            self._wake.notify()
        return ticket.future

    def close(self) -> None:
        """Finish what waits, then stop. Idempotent."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while (shares := self._next_batch()) is not None:
            if not shares:
                continue
            now = self._clock()
            report = BatchReport(
                crops=sum(share.stop - share.start for share in shares),
                requests=len(shares),
                waited=max(0.0, now - min(share.ticket.arrived for share in shares)),
            )
            self._embed(shares)
            self._on_batch(report)

    def _next_batch(self) -> list[Share] | None:
        """Wait for a batch worth running; None after `close`, when nothing is left to do."""
        with self._wake:
            while True:
                self._queue.drop_finished()
                oldest = self._queue.oldest()
                if oldest is None:
                    if self._closed:
                        return None
                    self._wake.wait()
                    continue
                patience = oldest + self._max_wait - self._clock()
                if (
                    self._closed
                    or len(self._queue) >= self._max_batch
                    or patience <= 0
                    or not self._more_expected()
                ):
                    return self._queue.take(self._max_batch)
                self._wake.wait(patience)

    def _embed(self, shares: list[Share]) -> None:
        try:
            crops = [share.ticket.crops[share.start : share.stop] for share in shares]
            rows = self._embedder.embed(crops[0] if len(crops) == 1 else np.concatenate(crops))
        except Exception as error:  # whatever a model or a malformed crop can raise belongs to its caller
            if len(shares) > 1:
                for share in shares:
                    self._embed([share])
            else:
                self._fail(shares[0].ticket, error)
            return
        start = 0
        for share in shares:
            stop = start + share.stop - share.start
            self._deliver(share, rows[start:stop])
            start = stop

    @staticmethod
    def _deliver(share: Share, rows: FloatArray) -> None:
        ticket = share.ticket
        ticket.vectors[share.start : share.stop] = rows
        ticket.done += len(rows)
        if ticket.done == len(ticket.crops) and _may_answer(ticket.future):
            ticket.future.set_result(ticket.vectors)

    @staticmethod
    def _fail(ticket: _Ticket, error: Exception) -> None:
        if _may_answer(ticket.future):
            ticket.future.set_exception(error)


def _may_answer(future: "Future[FloatArray]") -> bool:
    """True, once, when nobody cancelled the future or answered it; it cannot be cancelled after that."""
    return not future.done() and future.set_running_or_notify_cancel()
