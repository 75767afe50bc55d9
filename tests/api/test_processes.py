"""The service with processes that look at pictures, over HTTP."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from sphereid.inference.loading import SEATS
from sphereid.inference.worker_pool import WorkerPool
from sphereid.settings import Settings

from tests.api.conftest import assert_problem
from tests.api.test_load import gauge
from tests.server import Running, serving, until

LIMIT = 60.0


@pytest.fixture(scope="module")
def two(toy_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with two processes."""
    with serving(toy_settings(tmp_path_factory.mktemp("two"), workers=2)) as running:
        yield running


def sight_of(running: Running) -> WorkerPool:
    sight = running.parts.recognition._looker._sight
    assert isinstance(sight, WorkerPool)
    return sight


def pids(running: Running) -> list[int]:
    return sight_of(running).pids


def test_answers_are_those_of_a_service_without_processes(
    two: Running, server: Running, two_faces_jpeg: bytes, no_face_jpeg: bytes
) -> None:
    for image in (two_faces_jpeg, no_face_jpeg):
        mine, theirs = (each.client.post("/v1/embed", files={"image": image}) for each in (two, server))
        assert mine.status_code == theirs.status_code == 200
        for one, other in zip(mine.json()["faces"], theirs.json()["faces"], strict=True):
            np.testing.assert_allclose(one.pop("embedding"), other.pop("embedding"), atol=1e-5)
            assert one == other
        assert set(mine.json()["timings_ms"]) == {"queue", "decode", "detect", "embed"}
    assert_problem(two.client.post("/v1/detect", files={"image": b"none"}), 415, "image_unsupported")
    assert gauge(two.client, "sphereid_workers") == 2
    assert gauge(two.client, "sphereid_batch_faces_sum") == 2


def test_pictures_are_kept_although_they_were_seen_elsewhere(two: Running, face_jpeg: bytes) -> None:
    two.client.post("/v1/galleries", json={"id": "kept", "keep_crops": True}).raise_for_status()
    path = "/v1/galleries/kept/identities/eileen"
    two.client.post(f"{path}/faces", files={"images": face_jpeg}, data={"create": "true"}).raise_for_status()
    assert two.client.get(f"{path}/picture").headers["content-type"] == "image/jpeg"
    found = two.client.post("/v1/galleries/kept/identify", files={"image": face_jpeg}).json()
    assert found["faces"][0]["identity"]["id"] == "eileen"


def test_a_process_that_dies_costs_its_requests_a_503_and_nobody_else_anything(
    two: Running, face_jpeg: bytes
) -> None:
    before = pids(two)
    for pid in before:  # so that they die over the request and not after it
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(two.client.post, "/v1/detect", files={"image": face_jpeg}) for _ in range(2)]
        until(lambda: two.parts.admission.active == 2)
        until(lambda: [len(each.free) for each in sight_of(two)._there] == [SEATS - 1] * 2)
        os.kill(before[0], signal.SIGKILL)
        os.kill(before[1], signal.SIGCONT)
        answers = sorted((each.result(LIMIT) for each in asked), key=lambda each: each.status_code)
    assert answers[0].status_code == 200
    assert_problem(answers[1], 503, "process_lost")
    assert int(answers[1].headers["retry-after"]) >= 1
    until(lambda: len(pids(two)) == 2 and before[0] not in pids(two))
    assert before[1] in pids(two)
    assert two.client.post("/v1/detect", files={"image": face_jpeg}).status_code == 200


def test_a_client_that_goes_frees_its_place(two: Running, face_jpeg: bytes) -> None:
    host, port = two.url.removeprefix("http://").split(":")
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body = part + face_jpeg + b"\r\n--b--\r\n"
    head = (
        "POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    for pid in pids(two):
        os.kill(pid, signal.SIGSTOP)
    try:
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + body)
            until(lambda: two.parts.admission.active == 1)
        until(lambda: not two.parts.admission.active)
    finally:
        for pid in pids(two):
            os.kill(pid, signal.SIGCONT)
    assert two.client.post("/v1/detect", files={"image": face_jpeg}).status_code == 200


def test_work_under_way_is_finished_when_the_server_stops(
    toy_settings: Callable[..., Settings], tmp_path: Path, face_jpeg: bytes
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with serving(toy_settings(tmp_path, workers=1)) as running:
            (pid,) = pids(running)
            os.kill(pid, signal.SIGSTOP)
            client = httpx.Client(base_url=running.url, timeout=LIMIT)
            answer = pool.submit(client.post, "/v1/embed", files={"image": face_jpeg})
            until(lambda: running.parts.admission.active == 1)
            threading.Timer(0.2, os.kill, (pid, signal.SIGCONT)).start()  # when the server is stopping
        assert answer.result(LIMIT).status_code == 200
        client.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
