"""Micro-batching: the aligned crops of concurrent requests go through the embedder together.

A network costs less per crop in a batch than alone, and a service sees many requests with one or two crops.
The threads that bring crops run the batches, so that a crop changes threads only where it shares a batch.
What arrives while all lanes are busy waits, and goes in turns into the next batches.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from sphereid.faces.errors import PipelineError
from sphereid.faces.ports import FaceEmbedder
from sphereid.faces.types import Face, FloatArray, RGBImage


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
class Ticket:
    """One request's crops on their way, (N, H, W, 3) uint8, and the (N, D) float32 rows they become.

    arrived: seconds of the batcher's clock. wanted: whether anybody still waits for them. taken: handed out
    so far; done: embedded so far. waiting: whether the request's thread sleeps on `changed`.
    """

    crops: RGBImage
    vectors: FloatArray
    arrived: float
    changed: threading.Condition
    wanted: Callable[[], bool] = lambda: True
    taken: int = 0
    done: int = 0
    error: BaseException | None = None
    waiting: bool = False

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.error is not None or self.done == len(self.crops)


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """The part of a batch that belongs to one ticket: its crops [start, stop)."""

    ticket: Ticket
    start: int
    stop: int


class FairQueue:
    """Waiting tickets, served in turns of one crop each. Not thread-safe by itself.

    A photograph with fifty faces takes its turn like everybody else, so a portrait that arrives behind it is
    in the next batch.
    """

    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()
        self._crops = 0

    def __len__(self) -> int:
        """Crops that were not handed out yet, those of abandoned requests included until they are dropped."""
        return self._crops

    def push(self, ticket: Ticket) -> None:
        """Let a ticket wait for its turns."""
        self._waiting.append(ticket)
        self._crops += len(ticket.crops) - ticket.taken

    def oldest(self) -> float | None:
        """Arrival of the longest-waiting ticket, None when nobody waits."""
        return min((ticket.arrived for ticket in self._waiting), default=None)

    def sleeper(self) -> Ticket | None:
        """The first ticket whose thread could be woken to run a batch."""
        return next((ticket for ticket in self._waiting if ticket.waiting), None)

    def drop_finished(self) -> None:
        """Forget the tickets that nobody wants any more and those whose first crops failed already."""
        for ticket in self._waiting:
            if not ticket.finished and not ticket.wanted():
                ticket.error = CancelledError()
                ticket.changed.notify()
        if any(ticket.finished for ticket in self._waiting):
            self._waiting = deque(t for t in self._waiting if not t.finished)
            self._crops = sum(len(t.crops) - t.taken for t in self._waiting)

    def take(self, limit: int) -> list[Share]:
        """Hand out up to `limit` crops, one a ticket and turn, as one contiguous share a ticket."""
        counts: dict[Ticket, int] = {}
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

    It has no threads of its own: whoever brings crops runs a batch as soon as a lane is free, the crops of
    others among them, and sleeps otherwise until its own rows are there. An error of the embedder hits only
    the request that caused it: a failing batch is repeated request by request.
    """

    def __init__(
        self,
        embedder: FaceEmbedder,
        *,
        lanes: int = 1,
        max_batch: int = 32,
        max_wait: float = 0.0,
        max_queue: int = 512,
        more_expected: Callable[[], bool] = lambda: True,
        on_batch: Callable[[BatchReport], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """lanes: batches that run beside each other. max_batch: crops a batch. max_wait: seconds that a
        request waits for company although a lane is free, 0 for none.

        max_queue: crops that may wait; one request may pass it when nobody else waits, or a picture with more
        faces could never be served. more_expected: False says that waiting for company is pointless now.
        on_batch: called after each batch in the thread that ran it. clock: seconds, monotonic.
        """
        if min(lanes, max_batch, max_queue) < 1 or max_wait < 0:
            raise ValueError("lanes, max_batch and max_queue must be at least 1, max_wait at least 0")
        self._embedder: Final = embedder
        self._lanes: Final = lanes
        self._max_batch: Final = max_batch
        self._max_wait: Final = max_wait
        self._max_queue: Final = max_queue
        self._more_expected: Final = more_expected
        self._on_batch: Final = on_batch
        self._clock: Final = clock
        self._queue = FairQueue()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._running = 0
        self._closed = False

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
        with self._lock:
            return len(self._queue)

    def align(self, image: RGBImage, faces: Sequence[Face]) -> RGBImage:
        """(N, H, W, 3) uint8 RGB crops of `faces`, as the embedder aligns them."""
        return self._embedder.align(image, faces)

    def embed(self, crops: RGBImage, wanted: Callable[[], bool] = lambda: True) -> FloatArray:
        """(N, D) float32 rows of L2 norm 1 for (N, H, W, 3) uint8 crops; N may be 0.

        wanted: False takes crops that still wait out of the queue, and CancelledError is raised.
        Raises QueueFullError when too many crops wait already, BatcherClosedError after `close`, and what the
        embedder raises.
        """
        vectors = np.empty((len(crops), self.dim), dtype=np.float32)
        with self._lock:
            if self._closed:
                raise BatcherClosedError("the service is shutting down")
            if not len(crops):
                return vectors
            ticket = Ticket(crops, vectors, self._clock(), threading.Condition(self._lock), wanted)
            self._queue.drop_finished()
            if len(self._queue) and len(self._queue) + len(crops) > self._max_queue:
                raise QueueFullError(f"{len(self._queue)} faces wait for the embedder already; try again")
            self._queue.push(ticket)
            while not ticket.finished:
                if shares := self._due():
                    self._lead(shares)
                else:
                    ticket.waiting = True
                    ticket.changed.wait(self._patience())
                    ticket.waiting = False
            self._hand_on()
        if ticket.error is not None:
            raise ticket.error
        return vectors

    def close(self) -> None:
        """Finish what waits; take nothing more. Idempotent."""
        with self._lock:
            self._closed = True
            while self._running or len(self._queue):
                self._hand_on()
                self._idle.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # All below is called with the lock held.

    def _due(self) -> list[Share]:
        """The crops of a batch that may run now; empty where none may."""
        self._queue.drop_finished()
        patience = self._patience()
        return self._queue.take(self._max_batch) if patience is not None and patience <= 0 else []

    def _patience(self) -> float | None:
        """Seconds until the next batch is due; None where only the end of another batch can make it so."""
        oldest = self._queue.oldest()
        if self._running >= self._lanes or oldest is None:
            return None
        if self._closed or len(self._queue) >= self._max_batch or not self._more_expected():
            return 0.0
        return oldest + self._max_wait - self._clock()

    def _lead(self, shares: list[Share]) -> None:
        report = BatchReport(
            crops=sum(share.stop - share.start for share in shares),
            requests=len(shares),
            waited=max(0.0, self._clock() - min(share.ticket.arrived for share in shares)),
        )
        self._running += 1
        try:
            with _released(self._lock):
                results = self._embed(shares)
                self._on_batch(report)
        finally:
            self._running -= 1
        for share, rows in results:
            _deliver(share, rows)

    def _hand_on(self) -> None:
        """Whoever leaves lets somebody who waits run the next batch."""
        self._queue.drop_finished()
        sleeper = self._queue.sleeper() if self._running < self._lanes else None
        if sleeper is not None:
            sleeper.changed.notify()
        self._idle.notify_all()

    def _embed(self, shares: list[Share]) -> list[tuple[Share, FloatArray | Exception]]:
        """Each share's rows, or what went wrong with it. Called without the lock."""
        try:
            crops = [share.ticket.crops[share.start : share.stop] for share in shares]
            rows = self._embedder.embed(crops[0] if len(crops) == 1 else np.concatenate(crops))
        except Exception as error:  # whatever a model or a malformed crop can raise belongs to its caller
            if len(shares) == 1:
                return [(shares[0], error)]
            return [result for share in shares for result in self._embed([share])]
        ends = np.cumsum([share.stop - share.start for share in shares])
        return list(zip(shares, np.split(rows, ends[:-1]), strict=True))


def _deliver(share: Share, rows: FloatArray | Exception) -> None:
    ticket = share.ticket
    if isinstance(rows, Exception):
        ticket.error = ticket.error or rows
    else:
        ticket.vectors[share.start : share.stop] = rows
        ticket.done += len(rows)
    if ticket.finished:
        ticket.changed.notify()


@contextmanager
def _released(lock: threading.Lock) -> Iterator[None]:
    lock.release()
    try:
        yield
    finally:
        lock.acquire()
