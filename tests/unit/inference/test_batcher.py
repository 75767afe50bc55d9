"""The micro-batcher: batches are shared, fair, bounded, and one caller's trouble stays its own."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sphereid.faces.types import Face, FloatArray, RGBImage
from sphereid.inference.batcher import (
    BatcherClosedError,
    BatchReport,
    FairQueue,
    MicroBatcher,
    QueueFullError,
    Ticket,
)

PATIENT = 3600.0  # nobody waits this long: only a full batch or a closing batcher ends the wait
LIMIT = 20.0  # a test that hangs fails instead


def crops(*values: int) -> RGBImage:
    return np.stack([np.full((2, 2, 3), value, dtype=np.uint8) for value in values])


def expected(images: RGBImage) -> FloatArray:
    values = images[:, 0, 0, 0].astype(np.float32)
    return np.stack([np.cos(values), np.sin(values)], axis=1)


class Recorder:
    """An embedder whose every batch is written down, and which can be held at the door."""

    name, contract, dim = "recorder", "c0", 2

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()

    def align(self, image: RGBImage, faces: Sequence[Face]) -> RGBImage:
        raise AssertionError("not used")

    def embed(self, images: RGBImage) -> FloatArray:
        values = [int(v) for v in images[:, 0, 0, 0]]
        self.batches.append(values)
        self.entered.release()
        assert self.open.wait(LIMIT)
        if 255 in values:
            raise ValueError("a crop that the model chokes on")
        return expected(images)


@pytest.fixture
def embedder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.open.set()


class Callers:
    """Threads that bring crops and wait for their rows."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(64)

    def submit(self, batcher: MicroBatcher, images: RGBImage) -> "Caller":
        """Returns once the crops are in the queue, in a batch, or refused."""
        caller, before = Caller(), batcher.waiting
        caller.rows = self._pool.submit(batcher.embed, images, lambda: not caller.gone)
        end = time.monotonic() + LIMIT
        while batcher.waiting == before and not caller.rows.done():
            assert time.monotonic() < end
            time.sleep(0.0005)
        return caller

    def hold(self, embedder: Recorder, batcher: MicroBatcher, value: int = 0) -> "Caller":
        """Occupy a lane of the embedder with one crop, so that what comes next has to queue."""
        embedder.open.clear()
        caller = Caller()
        caller.rows = self._pool.submit(batcher.embed, crops(value))
        assert embedder.entered.acquire(timeout=LIMIT)
        return caller

    def close(self) -> None:
        self._pool.shutdown()


class Caller:
    rows: "Future[FloatArray]"
    gone = False

    def result(self) -> FloatArray:
        return self.rows.result(LIMIT)


@pytest.fixture
def callers(embedder: Recorder) -> Iterator[Callers]:
    made = Callers()
    yield made
    embedder.open.set()
    made.close()


def test_a_full_batch_does_not_wait(embedder: Recorder, callers: Callers) -> None:
    with MicroBatcher(embedder, max_batch=3, max_wait=PATIENT) as batcher:
        futures = [callers.submit(batcher, crops(i)) for i in (1, 2, 3)]
        for i, future in zip((1, 2, 3), futures, strict=True):
            np.testing.assert_array_equal(future.result(), expected(crops(i)))
    assert sorted(embedder.batches[0]) == [1, 2, 3]
    assert len(embedder.batches) == 1


def test_nobody_is_waited_for_when_nobody_is_coming(embedder: Recorder, callers: Callers) -> None:
    with MicroBatcher(embedder, max_batch=9, max_wait=PATIENT, more_expected=lambda: False) as batcher:
        np.testing.assert_array_equal(callers.submit(batcher, crops(7)).result(), expected(crops(7)))


def test_patience_ends_by_the_clock(embedder: Recorder) -> None:
    time = iter([0.0, 5.0, 5.0])  # submitted at 0, looked at after 5 seconds, reported
    with MicroBatcher(embedder, max_batch=9, max_wait=4.0, clock=lambda: next(time, 5.0)) as batcher:
        np.testing.assert_array_equal(batcher.embed(crops(1)), expected(crops(1)))


def test_what_arrives_during_a_batch_shares_the_next(embedder: Recorder, callers: Callers) -> None:
    reports: list[BatchReport] = []
    with MicroBatcher(embedder, max_batch=8, max_wait=0, on_batch=reports.append) as batcher:
        callers.hold(embedder, batcher)
        futures = [callers.submit(batcher, crops(i)) for i in (1, 2, 3)]
        assert batcher.waiting == 3
        embedder.open.set()
        for i, future in zip((1, 2, 3), futures, strict=True):
            np.testing.assert_array_equal(future.result(), expected(crops(i)))
    assert embedder.batches == [[0], [1, 2, 3]]
    assert [(r.crops, r.requests) for r in reports] == [(1, 1), (3, 3)]


def test_a_group_photo_does_not_starve_portraits(embedder: Recorder, callers: Callers) -> None:
    with MicroBatcher(embedder, max_batch=4, max_wait=0) as batcher:
        callers.hold(embedder, batcher)
        group = callers.submit(batcher, crops(*range(100, 150)))
        portraits = [callers.submit(batcher, crops(i)) for i in (1, 2, 3)]
        embedder.open.set()
        np.testing.assert_array_equal(group.result(), expected(crops(*range(100, 150))))
        for i, future in zip((1, 2, 3), portraits, strict=True):
            np.testing.assert_array_equal(future.result(), expected(crops(i)))
    assert {1, 2, 3} < set(embedder.batches[1])


def test_an_error_hits_only_its_request(embedder: Recorder, callers: Callers) -> None:
    with MicroBatcher(embedder, max_batch=8, max_wait=0) as batcher:
        callers.hold(embedder, batcher)
        good, bad, other = (callers.submit(batcher, crops(*v)) for v in ((1, 2), (3, 255), (4,)))
        embedder.open.set()
        np.testing.assert_array_equal(good.result(), expected(crops(1, 2)))
        np.testing.assert_array_equal(other.result(), expected(crops(4)))
        with pytest.raises(ValueError, match="chokes"):
            bad.result()
        np.testing.assert_array_equal(callers.submit(batcher, crops(5)).result(), expected(crops(5)))


def test_a_failed_group_photo_runs_no_further(embedder: Recorder, callers: Callers) -> None:
    with MicroBatcher(embedder, max_batch=2, max_wait=0) as batcher:
        callers.hold(embedder, batcher)
        bad = callers.submit(batcher, crops(255, *range(50)))
        embedder.open.set()
        with pytest.raises(ValueError, match="chokes"):
            bad.result()
    assert len(embedder.batches) == 2


def test_crops_that_nobody_wants_never_run(embedder: Recorder, callers: Callers) -> None:
    with MicroBatcher(embedder, max_batch=8, max_wait=0) as batcher:
        callers.hold(embedder, batcher)
        gone, stays = callers.submit(batcher, crops(1, 2)), callers.submit(batcher, crops(3))
        gone.gone = True
        embedder.open.set()
        np.testing.assert_array_equal(stays.result(), expected(crops(3)))
        with pytest.raises(CancelledError):
            gone.result()
    assert embedder.batches == [[0], [3]]


def test_whoever_leaves_wakes_the_next(embedder: Recorder, callers: Callers) -> None:
    """Also where the one who was woken for the next batch is not wanted any more."""
    with MicroBatcher(embedder, max_batch=1, max_wait=0) as batcher:
        callers.hold(embedder, batcher)
        waiting = [callers.submit(batcher, crops(i)) for i in range(1, 7)]
        for caller in waiting[::2]:
            caller.gone = True
        embedder.open.set()
        for i, caller in enumerate(waiting[1::2]):
            np.testing.assert_array_equal(caller.result(), expected(crops(2 * i + 2)))
    assert sorted(embedder.batches) == [[0], [2], [4], [6]]


def test_lanes_run_beside_each_other(embedder: Recorder, callers: Callers) -> None:
    with MicroBatcher(embedder, lanes=2, max_batch=8) as batcher:
        callers.hold(embedder, batcher)
        second = callers.hold(embedder, batcher, 1)  # although the first is still there
        third = [callers.submit(batcher, crops(i)) for i in (2, 3)]
        assert batcher.waiting == 2
        embedder.open.set()
        for i, caller in enumerate((second, *third), start=1):
            np.testing.assert_array_equal(caller.result(), expected(crops(i)))
    assert sorted(map(sorted, embedder.batches)) == [[0], [1], [2, 3]]


def test_a_full_queue_refuses_and_recovers(embedder: Recorder, callers: Callers) -> None:
    with MicroBatcher(embedder, max_batch=2, max_wait=0, max_queue=3) as batcher:
        callers.hold(embedder, batcher)
        waiting = callers.submit(batcher, crops(1, 2, 3))
        with pytest.raises(QueueFullError):
            batcher.embed(crops(4))
        waiting.gone = True
        again = callers.submit(batcher, crops(5))  # who went away frees the place at once
        embedder.open.set()
        np.testing.assert_array_equal(again.result(), expected(crops(5)))


def test_one_huge_request_passes_an_empty_queue(embedder: Recorder) -> None:
    with MicroBatcher(embedder, max_batch=4, max_wait=0, max_queue=2) as batcher:
        np.testing.assert_array_equal(batcher.embed(crops(*range(9))), expected(crops(*range(9))))


def test_closing_finishes_what_waits_and_takes_nothing_new(embedder: Recorder, callers: Callers) -> None:
    batcher = MicroBatcher(embedder, max_batch=8, max_wait=PATIENT)
    waiting = [callers.submit(batcher, crops(i)) for i in (1, 2)]
    batcher.close()
    batcher.close()
    for i, caller in zip((1, 2), waiting, strict=True):
        np.testing.assert_array_equal(caller.result(), expected(crops(i)))
    with pytest.raises(BatcherClosedError):
        batcher.embed(crops(3))


def test_no_crops_need_no_batch(embedder: Recorder) -> None:
    with MicroBatcher(embedder) as batcher:
        assert batcher.embed(np.empty((0, 2, 2, 3), np.uint8)).shape == (0, 2)
    assert embedder.batches == []


def test_crops_of_another_shape_harm_only_themselves(embedder: Recorder, callers: Callers) -> None:
    with MicroBatcher(embedder, max_batch=8, max_wait=0) as batcher:
        callers.hold(embedder, batcher)
        good, odd = (
            callers.submit(batcher, crops(1)),
            callers.submit(batcher, np.full((1, 5, 5, 3), 9, np.uint8)),
        )
        embedder.open.set()
        np.testing.assert_array_equal(good.result(), expected(crops(1)))
        assert odd.result().shape == (1, 2)  # this embedder takes any shape; batching did not mix them


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=12),
    max_batch=st.integers(1, 7),
    lanes=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_everybody_gets_their_own_rows(sizes: list[int], max_batch: int, lanes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    requests = [rng.integers(0, 250, size=(n, 2, 2, 3), dtype=np.uint8) for n in sizes]
    with (
        ThreadPoolExecutor(len(sizes)) as pool,
        MicroBatcher(Recorder(), lanes=lanes, max_batch=max_batch, max_queue=10_000) as batcher,
    ):
        found = list(pool.map(batcher.embed, requests, timeout=LIMIT))
    for request, rows in zip(requests, found, strict=True):
        np.testing.assert_array_equal(rows, expected(request) if len(request) else np.empty((0, 2)))


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=10), limit=st.integers(1, 9))
def test_turns_are_fair_and_complete(sizes: list[int], limit: int) -> None:
    queue = FairQueue()
    changed = threading.Condition()
    tickets = [Ticket(crops(*range(n)), np.empty((n, 2), np.float32), 0.0, changed) for n in sizes]
    for ticket in tickets:
        queue.push(ticket)
    served = dict.fromkeys(tickets, 0)
    while len(queue):
        shares = queue.take(limit)
        assert sum(s.stop - s.start for s in shares) == min(limit, sum(sizes) - sum(served.values()))
        for share in shares:
            assert share.start == served[share.ticket]
            served[share.ticket] = share.stop
        unfinished = [served[t] for t in tickets if served[t] < len(t.crops)]
        if unfinished:  # round robin: nobody who still waits is more than one turn behind anybody
            assert max(served.values()) - min(unfinished) <= 1
    assert [served[t] for t in tickets] == sizes
