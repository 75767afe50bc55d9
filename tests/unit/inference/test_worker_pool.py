"""Processes that look at pictures: what they see, who gets a turn, and what becomes of all when one dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sphereid.bootstrap import images_at_once
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.errors import ImageError, ModelError
from sphereid.faces.pipeline import FacePipeline
from sphereid.inference.batcher import BatcherClosedError, BatchReport, MicroBatcher
from sphereid.inference.in_process import InProcessAnalyzer
from sphereid.inference.loading import SEATS, build_engine, load_embedder, worker_count
from sphereid.inference.models import Model
from sphereid.inference.types import AnalysisRequest, ProcessLostError
from sphereid.inference.worker_pool import WorkerPool
from sphereid.settings import Settings

from tests.server import jpeg, settings_for, until
from tests.toy import write_toy_model

LIMIT = 60.0
EVERYTHING = AnalysisRequest(embed=True, min_face=None, min_score=0.9, max_faces=256)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two models; batches of two faces, so that a crowd has many turns."""
    folder = tmp_path_factory.mktemp("processes")
    write_toy_model(folder / "models")
    write_toy_model(folder / "models", "other", seed=7)
    return settings_for(folder, model="toy", queues={"max_batch": 2})


@pytest.fixture(scope="module")
def model(settings: Settings) -> Model:
    return loaded(settings, "toy")


def loaded(settings: Settings, name: str) -> Model:
    embedder: OnnxEmbedder = load_embedder(settings, name)
    detector = build_engine(settings).detector
    batcher = MicroBatcher(embedder)
    return Model(embedder, batcher, FacePipeline(detector, batcher), FacePipeline(detector, embedder))


@pytest.fixture
def one(settings: Settings) -> Iterator[WorkerPool]:
    """A single process with its seats."""
    with_one = WorkerPool(settings, count=1, seats=SEATS)
    try:
        with_one.wait()
        yield with_one
    finally:
        with_one.close()


@pytest.fixture(scope="module")
def crowd(portrait: NDArray[np.uint8]) -> bytes:
    """Forty-nine faces: two dozen turns."""
    return jpeg(np.tile(portrait[::2, ::2], (7, 7, 1)))


@pytest.fixture(scope="module")
def face(portrait: NDArray[np.uint8]) -> bytes:
    return jpeg(portrait[::2, ::2])


def yes() -> bool:
    return True


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody asked about yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_processes_see_what_threads_see(
    settings: Settings, model: Model, one: WorkerPool, crowd: bytes, face: bytes
) -> None:
    threads = InProcessAnalyzer(build_engine(settings).limits)
    for file in (face, crowd):
        here, there = (sight.look(model, file, EVERYTHING, yes) for sight in (threads, one))
        assert (here.width, here.height) == (there.width, there.height)
        assert len(here.faces) == len(there.faces) >= 1
        for mine, theirs in zip(here.faces, there.faces, strict=True):
            np.testing.assert_array_equal(mine.box_xyxy, theirs.box_xyxy)
            np.testing.assert_array_equal(mine.landmarks, theirs.landmarks)
            assert mine.quality == theirs.quality
        np.testing.assert_allclose(here.vectors, there.vectors, atol=1e-5)
        assert min(there.decode, there.detect, there.embed) > 0
    without = one.look(model, face, AnalysisRequest(False, None, 0.9, 256), yes)
    assert len(without.faces) == 1
    assert without.vectors.shape[0] == 0


def test_every_batch_is_reported(settings: Settings, model: Model, crowd: bytes) -> None:
    reports: list[BatchReport] = []
    sight = WorkerPool(settings, count=1, seats=SEATS, on_batch=reports.append)
    try:
        faces = len(sight.look(model, crowd, EVERYTHING, yes).faces)
    finally:
        sight.close()
    assert sum(report.crops for report in reports) == faces > 40
    assert max(report.crops for report in reports) == 2
    assert [report.waited for report in reports] == sorted(report.waited for report in reports)


def test_a_gallery_of_another_model_is_served_too(settings: Settings, one: WorkerPool, face: bytes) -> None:
    mine, other = (loaded(settings, name) for name in ("toy", "other"))
    first, second, again = (one.look(m, face, EVERYTHING, yes).vectors for m in (mine, other, mine))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(
        second,
        InProcessAnalyzer(build_engine(settings).limits).look(other, face, EVERYTHING, yes).vectors,
        atol=1e-5,
    )
    assert abs(float(first[0] @ second[0])) < 0.99


def test_errors_come_to_whoever_asked_and_harm_nobody(
    settings: Settings, model: Model, one: WorkerPool, face: bytes
) -> None:
    pids = one.pids
    with pytest.raises(ImageError) as caught:
        one.look(model, b"no picture", EVERYTHING, yes)
    assert caught.value.code == "image_unsupported"
    unknown = loaded(settings, "toy")
    unknown.embedder.contract = "0" * 16  # type: ignore[misc]
    with pytest.raises(ModelError):
        one.look(unknown, face, EVERYTHING, yes)
    assert len(one.look(model, face, EVERYTHING, yes).faces) == 1
    assert one.pids == pids


def test_a_portrait_does_not_wait_for_a_crowd(
    model: Model, one: WorkerPool, crowd: bytes, face: bytes
) -> None:
    done: list[str] = []

    def look(name: str, file: bytes) -> None:
        one.look(model, file, EVERYTHING, yes)
        done.append(name)

    with ThreadPoolExecutor(3) as pool:
        large = pool.submit(look, "crowd", crowd)
        until(lambda: free(one) == SEATS - 1)
        for each in (large, pool.submit(look, "face", face), pool.submit(look, "face", face)):
            each.result(LIMIT)
    assert done == ["face", "face", "crowd"]


def test_who_goes_is_not_served_any_longer(model: Model, one: WorkerPool, crowd: bytes, face: bytes) -> None:
    """The crowd would have two dozen turns; the process is free long before."""
    whole = timed(lambda: one.look(model, crowd, EVERYTHING, yes))
    gone = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        leaving = [
            pool.submit(one.look, model, crowd, EVERYTHING, lambda: not gone.is_set()) for _ in range(3)
        ]
        until(lambda: free(one) == 0)
        waiting = pool.submit(one.look, model, face, EVERYTHING, lambda: not gone.is_set())
        gone.set()
        took = timed(lambda: wait((*leaving, waiting), LIMIT))
        assert all(isinstance(each.exception(), CancelledError) for each in (*leaving, waiting))
    assert took < 2 * whole  # three crowds and a face would take more than three times as long
    assert len(one.look(model, face, EVERYTHING, yes).faces) == 1


def test_a_process_that_dies_is_started_anew(
    model: Model, one: WorkerPool, crowd: bytes, face: bytes
) -> None:
    (pid,) = one.pids
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(one.look, model, crowd, EVERYTHING, yes)
        until(lambda: free(one) == SEATS - 1)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ProcessLostError):
            lost.result(LIMIT)
    until(lambda: one.pids not in ([], [pid]))
    assert len(one.look(model, face, EVERYTHING, yes).faces) == 1
    assert free(one) == SEATS


def test_who_asks_while_no_process_is_there_waits_for_the_next(
    model: Model, one: WorkerPool, face: bytes
) -> None:
    os.kill(one.pids[0], signal.SIGKILL)
    until(lambda: not one.pids)
    assert len(one.look(model, face, EVERYTHING, yes).faces) == 1


def test_the_processes_end_when_they_are_closed(settings: Settings, model: Model, face: bytes) -> None:
    sight = WorkerPool(settings, count=2, seats=SEATS)
    sight.wait()
    pids = sight.pids
    assert len(pids) == 2
    sight.close()
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(BatcherClosedError):
        sight.look(model, face, EVERYTHING, yes)
    sight.close()
    WorkerPool(settings, count=1, seats=SEATS).close()  # before it was there


def test_they_end_with_the_service_however_it_ended(settings: Settings) -> None:
    program = (
        "import sys, time; from sphereid.inference.worker_pool import WorkerPool\n"
        "from sphereid.settings import Settings\n"
        "sight = WorkerPool(Settings(), count=2, seats=2); sight.wait(); print(*sight.pids, flush=True)\n"
        "time.sleep(600)"
    )
    env = os.environ | {
        "SPHEREID_MODELS_DIR": str(settings.models_dir),
        "SPHEREID_DATA_DIR": str(settings.data_dir),
    }
    service = subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    pids = [int(pid) for pid in service.stdout.readline().split()]
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    for pid in pids:
        os.kill(pid, signal.SIGTERM)  # meant for the service; they stay until it has no more use for them
    time.sleep(0.2)
    assert all(alive(pid) for pid in pids)
    service.kill()
    service.wait(LIMIT)
    until(lambda: not any(alive(pid) for pid in pids))


def test_a_start_that_fails_is_said(settings: Settings, tmp_path: Path) -> None:
    sight = WorkerPool(settings.model_copy(update={"models_dir": tmp_path}), count=1, seats=1)
    try:
        with pytest.raises(ProcessLostError, match="did not start"):
            sight.wait()
    finally:
        sight.close()


@pytest.mark.parametrize(
    ("workers", "provider", "cores", "expected"),
    [
        (None, "cpu", 1, 0),
        (None, "cpu", 2, 2),
        (None, "cpu", 64, 16),
        (None, "cuda", 8, 0),
        (3, "cpu", 1, 3),
        (0, "cpu", 8, 0),
    ],
)
def test_how_many_there_are(
    workers: int | None, provider: str, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    values: dict[str, Any] = {"workers": workers, "provider": provider, "queues": {"in_flight": 2}}
    chosen = Settings(_env_file=None, **values)
    assert worker_count(chosen) == expected
    assert images_at_once(chosen) == max(2, SEATS * expected)


def free(sight: WorkerPool) -> int:
    """Seats that nobody has."""
    return sum(len(process.free) for process in list(sight._there))


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
