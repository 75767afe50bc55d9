"""`kill -9` at random points of a stream of mixed writes over HTTP: after each restart the database, the
index and the model of what was acknowledged say the same, and a write whose answer was lost can be sent
again."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.e2e.fault_writer import Writer
from tests.e2e.process import ServiceProcess, service
from tests.server import jpeg
from tests.toy import write_toy_model

WRITERS = 2


def write_until_killed(writers: list[Writer], running: ServiceProcess, writes: int, delay: float) -> None:
    """Let the writers do so many writes in all and kill the service `delay` seconds later, in the midst of
    whatever they do then."""
    target = sum(writer.count for writer in writers) + writes
    enough = threading.Event()

    def write(writer: Writer) -> None:
        with running.client() as client:
            while True:
                try:
                    writer.step(client)
                except httpx.TimeoutException:
                    raise  # nobody died, the machine is too busy for this test
                except httpx.TransportError:
                    return
                if sum(each.count for each in writers) >= target:
                    enough.set()

    with ThreadPoolExecutor(len(writers)) as pool:
        futures = [pool.submit(write, writer) for writer in writers]
        while not enough.wait(0.05):
            assert not any(future.done() for future in futures), [f.exception() for f in futures]
        moment = time.perf_counter() + delay
        while time.perf_counter() < moment:
            pass
        running.kill()
        for future in futures:
            future.result(120)


def run(folder: Path, portrait: NDArray[np.uint8], *, seed: int, writes: int, kills: int) -> None:
    write_toy_model(folder / "models")
    writers = [Writer(number, seed, portrait) for number in range(WRITERS)]
    rng = np.random.default_rng(seed)
    lost = searched = 0
    for turn in range(kills + 1):
        with service(folder / "data", folder / "models", SPHEREID_DETECTION__MIN_FACE="60") as running:
            with running.client() as client:
                for writer in writers:
                    if (unanswered := writer.unanswered) is not None:
                        writer.finish(unanswered, client)
                        lost += 1
                searched += sum(writer.judge(client) for writer in writers)
            if turn < kills:
                write_until_killed(writers, running, writes // kills, float(rng.uniform(0, 0.05)))
    done = sum(writer.count for writer in writers)
    repeated = sum(writer.repeated for writer in writers)
    print(f"{done} writes, {kills} kills, {searched} faces searched")
    print(f"{lost} answers lost; {repeated} of those writes were done")
    assert done >= writes


def test_500_writes_and_a_process_that_dies(tmp_path: Path, portrait: NDArray[np.uint8]) -> None:
    run(tmp_path, portrait, seed=1, writes=500, kills=4)


def test_a_write_that_was_committed_but_never_answered(tmp_path: Path, portrait: NDArray[np.uint8]) -> None:
    write_toy_model(tmp_path / "models")
    folders = tmp_path / "data", tmp_path / "models"

    def enroll(client: httpx.Client) -> httpx.Response:
        return client.post(
            "/v1/galleries/default/identities/ann/faces",
            files={"images": jpeg(portrait)},
            data={"create": "true"},
            headers={"Idempotency-Key": "the-same"},
        )

    with service(*folders, module="tests.e2e.dying_service", SPHEREID_TEST_DIES_AT="1") as dying:
        with dying.client() as client, pytest.raises(httpx.TransportError):
            enroll(client)
        assert dying.process.wait(60) == -9
    with service(*folders) as restarted, restarted.client() as client:
        answer = enroll(client)
        assert (answer.status_code, answer.headers["idempotent-replayed"]) == (201, "true")
        stored = client.get("/v1/galleries/default/identities/ann/faces").json()["items"]
        assert [each["id"] for each in stored] == [each["id"] for each in answer.json()["faces"]]
        assert answer.json()["revision"] == client.get("/v1/galleries/default").json()["revision"] == 1
        (found,) = client.post(
            "/v1/galleries/default/identify", files={"image": jpeg(portrait)}, data={"threshold": "0.99"}
        ).json()["faces"]
        assert found["identity"]["id"] == "ann"


@pytest.mark.slow
def test_5000_writes_and_a_process_that_dies(tmp_path: Path, portrait: NDArray[np.uint8]) -> None:
    run(tmp_path, portrait, seed=2, writes=5000, kills=50)
