"""Back-pressure, sharing of batches, clients that go away, and shutting down with work under way."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from sphereid.api.middleware.admission import Admission
from sphereid.api.problems import Problem
from sphereid.faces.detect import MtcnnDetector
from sphereid.settings import Settings

from tests.api.conftest import assert_problem
from tests.server import Running, jpeg, serving, until

LIMIT = 60.0


class Gate:
    """Holds the real detector at its door."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        real = MtcnnDetector.detect

        def detect(detector: MtcnnDetector, *args: Any, **kwargs: Any) -> Any:
            self.entered.release()
            assert self.open.wait(LIMIT)
            return real(detector, *args, **kwargs)

        monkeypatch.setattr(MtcnnDetector, "detect", detect)


@pytest.fixture
def narrow(toy_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Running]:
    """One image at a time, one more may wait."""
    with serving(toy_settings(tmp_path, queues={"in_flight": 1, "waiting": 1})) as running:
        yield running


def gauge(client: httpx.Client, name: str) -> float:
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name:
                return sample.value
    raise AssertionError(f"no metric {name}")


def test_more_than_fits_is_refused_and_the_rest_is_answered(
    narrow: Running, monkeypatch: pytest.MonkeyPatch, face_jpeg: bytes
) -> None:
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(narrow.client.post, "/v1/detect", files={"image": face_jpeg})
        assert gate.entered.acquire(timeout=LIMIT)
        waiting = pool.submit(narrow.client.post, "/v1/detect", files={"image": face_jpeg})
        until(lambda: narrow.parts.admission.active == 2)
        for _ in range(3):
            refused = narrow.client.post("/v1/detect", files={"image": face_jpeg})
            assert_problem(refused, 503, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
        assert narrow.client.get("/v1/galleries").status_code == 200  # what needs no image is not held up
        assert gauge(narrow.client, "sphereid_requests_active") == 2
        gate.open.set()
        assert running.result(LIMIT).status_code == waiting.result(LIMIT).status_code == 200
    assert narrow.client.post("/v1/detect", files={"image": face_jpeg}).status_code == 200


def test_a_client_that_goes_frees_its_place(
    narrow: Running, monkeypatch: pytest.MonkeyPatch, face_jpeg: bytes
) -> None:
    gate = Gate(monkeypatch)
    host, port = narrow.url.removeprefix("http://").split(":")
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body = part + face_jpeg + b"\r\n--b--\r\n"
    head = (
        "POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        assert gate.entered.acquire(timeout=LIMIT)
        assert narrow.parts.admission.active == 1
    gate.open.set()
    until(lambda: not narrow.parts.admission.active)
    assert narrow.client.post("/v1/detect", files={"image": face_jpeg}).status_code == 200


def test_concurrent_answers_are_the_same_as_single_ones(
    server: Running, gallery: str, portrait: NDArray[np.uint8], two_faces_jpeg: bytes
) -> None:
    """Batches mix the faces of several requests; nobody may get another's embedding."""
    pictures = [jpeg(np.roll(portrait, 7 * i, axis=1)) for i in range(5)] + [two_faces_jpeg]

    def embed(image: bytes) -> list[list[float]]:
        answer = server.client.post("/v1/embed", files={"image": image})
        answer.raise_for_status()
        return [face["embedding"] for face in answer.json()["faces"]]

    alone = [embed(picture) for picture in pictures]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(embed, pictures * 3))
    for one, other in zip(alone * 3, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_work_under_way_is_finished_when_the_server_stops(
    toy_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, face_jpeg: bytes
) -> None:
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        with serving(toy_settings(tmp_path)) as running:
            client = httpx.Client(base_url=running.url, timeout=LIMIT)
            answer = pool.submit(client.post, "/v1/embed", files={"image": face_jpeg})
            assert gate.entered.acquire(timeout=LIMIT)
            threading.Timer(0.05, gate.open.set).start()
        assert answer.result(LIMIT).status_code == 200
        client.close()


def test_a_slow_body_times_out(toy_settings: Callable[..., Settings], tmp_path: Path) -> None:
    with serving(toy_settings(tmp_path, limits={"body_timeout": 0.05})) as running:
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=LIMIT) as connection:
            connection.sendall(
                b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408")


def test_admission_counts_what_is_under_way() -> None:
    async def scenario() -> None:
        admission = Admission(2)
        async with admission.enter():
            async with admission.enter():
                with pytest.raises(Problem) as caught:
                    async with admission.enter():
                        raise AssertionError("must not get in")
                assert caught.value.status_code == 503
                assert admission.active == 2
            assert admission.active == 1
            with pytest.raises(RuntimeError):
                async with admission.enter():
                    raise RuntimeError
        assert admission.active == 0

    asyncio.run(scenario())


def test_a_full_service_refuses_before_it_looks(narrow: Running, face_jpeg: bytes) -> None:
    """Images only, under their own route in the metrics; everything else is served as ever."""
    admission = narrow.parts.admission
    admission.active += 2
    try:
        for path in ("/v1/verify", "/v1/galleries/none/identify"):  # not looked at: neither is valid
            assert_problem(narrow.client.post(path, content=b"?"), 503, "overloaded")
        assert narrow.client.get("/v1/galleries").status_code == 200
        assert_problem(narrow.client.post("/v1/galleries/none/elsewhere"), 404, "not_found")
        assert_problem(narrow.client.get("/v1/verify"), 405, "method_not_allowed")
    finally:
        admission.active -= 2
    assert 'route="/v1/verify",status="503"' in narrow.client.get("/metrics").text
    assert narrow.client.post("/v1/detect", files={"image": face_jpeg}).status_code == 200
