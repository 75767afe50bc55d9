"""The micro-batcher: batches are shared, fair, bounded, and one caller's trouble stays its own."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.pipeline.batcher import (
    BatcherClosedError,
    BatchReport,
    FairQueue,
    MicroBatcher,
    QueueFullError,
    _Ticket,
)
from app.pipeline.types import Face, FloatArray, RGBImage

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


def held(embedder: Recorder, batcher: MicroBatcher) -> "Future[FloatArray]":
    """Occupy the embedder with one crop, so that what is submitted next has to queue."""
    embedder.open.clear()
    future = batcher.submit(crops(0))
    assert embedder.entered.acquire(timeout=LIMIT)
    return future


def test_a_full_batch_does_not_wait(embedder: Recorder) -> None:
    with MicroBatcher(embedder, max_batch=3, max_wait=PATIENT) as batcher:
        futures = [batcher.submit(crops(i)) for i in (1, 2, 3)]
        for i, future in zip((1, 2, 3), futures, strict=True):
            np.testing.assert_array_equal(future.result(LIMIT), expected(crops(i)))
    assert sorted(embedder.batches[0]) == [1, 2, 3]
    assert len(embedder.batches) == 1


def test_nobody_is_waited_for_when_nobody_is_coming(embedder: Recorder) -> None:
    with MicroBatcher(embedder, max_batch=9, max_wait=PATIENT, more_expected=lambda: False) as batcher:
        np.testing.assert_array_equal(batcher.submit(crops(7)).result(LIMIT), expected(crops(7)))


def test_patience_ends_by_the_clock(embedder: Recorder) -> None:
    time = iter([0.0, 5.0, 5.0])  # submitted at 0, looked at after 5 seconds, reported
    with MicroBatcher(embedder, max_batch=9, max_wait=4.0, clock=lambda: next(time, 5.0)) as batcher:
        np.testing.assert_array_equal(batcher.embed(crops(1)), expected(crops(1)))


def test_what_arrives_during_a_batch_shares_the_next(embedder: Recorder) -> None:
    reports: list[BatchReport] = []
    with MicroBatcher(embedder, max_batch=8, max_wait=0, on_batch=reports.append) as batcher:
        held(embedder, batcher)
        futures = [batcher.submit(crops(i)) for i in (1, 2, 3)]
        assert batcher.waiting == 3
        embedder.open.set()
        for i, future in zip((1, 2, 3), futures, strict=True):
            np.testing.assert_array_equal(future.result(LIMIT), expected(crops(i)))
    assert embedder.batches == [[0], [1, 2, 3]]
    assert [(r.crops, r.requests) for r in reports] == [(1, 1), (3, 3)]


def test_a_group_photo_does_not_starve_portraits(embedder: Recorder) -> None:
    with MicroBatcher(embedder, max_batch=4, max_wait=0) as batcher:
        held(embedder, batcher)
        group = batcher.submit(crops(*range(100, 150)))
        portraits = [batcher.submit(crops(i)) for i in (1, 2, 3)]
        embedder.open.set()
        np.testing.assert_array_equal(group.result(LIMIT), expected(crops(*range(100, 150))))
        for i, future in zip((1, 2, 3), portraits, strict=True):
            np.testing.assert_array_equal(future.result(LIMIT), expected(crops(i)))
    assert {1, 2, 3} < set(embedder.batches[1])


def test_an_error_hits_only_its_request(embedder: Recorder) -> None:
    with MicroBatcher(embedder, max_batch=8, max_wait=0) as batcher:
        held(embedder, batcher)
        good, bad, other = (batcher.submit(crops(*v)) for v in ((1, 2), (3, 255), (4,)))
        embedder.open.set()
        np.testing.assert_array_equal(good.result(LIMIT), expected(crops(1, 2)))
        np.testing.assert_array_equal(other.result(LIMIT), expected(crops(4)))
        with pytest.raises(ValueError, match="chokes"):
            bad.result(LIMIT)
        np.testing.assert_array_equal(batcher.submit(crops(5)).result(LIMIT), expected(crops(5)))


def test_a_failed_group_photo_runs_no_further(embedder: Recorder) -> None:
    with MicroBatcher(embedder, max_batch=2, max_wait=0) as batcher:
        held(embedder, batcher)
        bad = batcher.submit(crops(255, *range(50)))
        embedder.open.set()
        with pytest.raises(ValueError, match="chokes"):
            bad.result(LIMIT)
    assert len(embedder.batches) == 2


def test_cancelled_crops_never_run(embedder: Recorder) -> None:
    with MicroBatcher(embedder, max_batch=8, max_wait=0) as batcher:
        held(embedder, batcher)
        gone, stays = batcher.submit(crops(1, 2)), batcher.submit(crops(3))
        assert gone.cancel()
        embedder.open.set()
        np.testing.assert_array_equal(stays.result(LIMIT), expected(crops(3)))
        with pytest.raises(CancelledError):
            gone.result(LIMIT)
    assert embedder.batches == [[0], [3]]


def test_a_full_queue_refuses_and_recovers(embedder: Recorder) -> None:
    with MicroBatcher(embedder, max_batch=2, max_wait=0, max_queue=3) as batcher:
        held(embedder, batcher)
        waiting = batcher.submit(crops(1, 2, 3))
        with pytest.raises(QueueFullError):
            batcher.submit(crops(4))
        assert waiting.cancel()
        again = batcher.submit(crops(5))  # a cancelled request frees its place at once
        embedder.open.set()
        np.testing.assert_array_equal(again.result(LIMIT), expected(crops(5)))


def test_one_huge_request_passes_an_empty_queue(embedder: Recorder) -> None:
    with MicroBatcher(embedder, max_batch=4, max_wait=0, max_queue=2) as batcher:
        np.testing.assert_array_equal(batcher.embed(crops(*range(9))), expected(crops(*range(9))))


def test_closing_finishes_what_waits_and_takes_nothing_new(embedder: Recorder) -> None:
    batcher = MicroBatcher(embedder, max_batch=8, max_wait=PATIENT)
    futures = [batcher.submit(crops(i)) for i in (1, 2)]
    batcher.close()
    batcher.close()
    for i, future in zip((1, 2), futures, strict=True):
        np.testing.assert_array_equal(future.result(0), expected(crops(i)))
    with pytest.raises(BatcherClosedError):
        batcher.submit(crops(3))


def test_no_crops_need_no_batch(embedder: Recorder) -> None:
    with MicroBatcher(embedder) as batcher:
        assert batcher.embed(np.empty((0, 2, 2, 3), np.uint8)).shape == (0, 2)
    assert embedder.batches == []


def test_crops_of_another_shape_harm_only_themselves(embedder: Recorder) -> None:
    with MicroBatcher(embedder, max_batch=8, max_wait=0) as batcher:
        held(embedder, batcher)
        good, odd = batcher.submit(crops(1)), batcher.submit(np.full((1, 5, 5, 3), 9, np.uint8))
        embedder.open.set()
        np.testing.assert_array_equal(good.result(LIMIT), expected(crops(1)))
        assert odd.result(LIMIT).shape == (1, 2)  # this embedder takes any shape; batching did not mix them


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=12),
    max_batch=st.integers(1, 7),
    seed=st.integers(0, 2**16),
)
def test_everybody_gets_their_own_rows(sizes: list[int], max_batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    requests = [rng.integers(0, 250, size=(n, 2, 2, 3), dtype=np.uint8) for n in sizes]
    with MicroBatcher(Recorder(), max_batch=max_batch, max_wait=0, max_queue=10_000) as batcher:
        futures = [batcher.submit(request) for request in requests]
        for request, future in zip(requests, futures, strict=True):
            np.testing.assert_array_equal(future.result(LIMIT), expected(request))


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=10), limit=st.integers(1, 9))
def test_turns_are_fair_and_complete(sizes: list[int], limit: int) -> None:
    queue = FairQueue()
    tickets = [_Ticket(crops(*range(n)), np.empty((n, 2), np.float32), 0.0) for n in sizes]
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
