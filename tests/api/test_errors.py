"""Whatever is wrong, the answer is a problem document that repeats nothing and reveals nothing."""

import json
import logging
import re
import socket
from collections.abc import Callable, Iterator

import httpx
import pytest
from sphereid.settings import Settings

from tests.api.conftest import assert_problem
from tests.server import Running, serving

SECRET = "do-not-repeat-me-4711"


def test_unknown_routes_and_methods(client: httpx.Client) -> None:
    assert_problem(client.get("/v1/nothing"), 404, "not_found")
    assert_problem(client.get("/v1/galleries/"), 404, "not_found")
    refused = client.put("/v1/galleries", json={})
    assert_problem(refused, 405, "method_not_allowed")
    assert set(refused.headers["allow"].replace(" ", "").split(",")) <= {"GET", "HEAD", "POST"}


def test_validation_repeats_nothing(client: httpx.Client, gallery: str, face_jpeg: bytes) -> None:
    answers = [
        client.post("/v1/galleries", json={"id": SECRET + "!"}),
        client.post("/v1/galleries", json={"name": [SECRET]}),
        client.post(
            "/v1/galleries", content=f'{{"id": "{SECRET}', headers={"content-type": "application/json"}
        ),
        client.post("/v1/detect", json={"image": {"base64": SECRET + "!!"}}),
        client.post(f"{gallery}/identify", files={"image": face_jpeg}, data={"k": SECRET}),
        client.get("/v1/galleries", params={"limit": SECRET}),
    ]
    for answer in answers:
        problem = assert_problem(answer, 422, "invalid_request")
        assert SECRET not in answer.text
        assert problem["errors"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", b"hello"),
        ("application/x-www-form-urlencoded", b"a=b"),
        ("image/jpeg", b"\xff\xd8\xff"),
        ("", b"x"),
    ],
)
def test_bodies_of_the_wrong_type(client: httpx.Client, content_type: str, body: bytes) -> None:
    headers = {"content-type": content_type} if content_type else {}
    for path in ("/v1/detect", "/v1/galleries"):
        response = client.post(path, content=body, headers=headers)
        assert_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x\r\n",
        b"--x\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--x--\r\n",
        b"not multipart at all",
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\ntruncated',
    ],
)
def test_damaged_multipart(client: httpx.Client, body: bytes) -> None:
    response = client.post(
        "/v1/detect", content=body, headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"
    no_boundary = client.post("/v1/detect", content=body, headers={"content-type": "multipart/form-data"})
    assert_problem(no_boundary, 400, "malformed_request")


def test_form_fields_are_checked(client: httpx.Client, face_jpeg: bytes) -> None:
    def post(**kwargs: object) -> httpx.Response:
        return client.post("/v1/detect", **kwargs)  # type: ignore[arg-type]

    for answer in (
        post(files={"photo": face_jpeg}),
        post(files=[("image", face_jpeg), ("image", face_jpeg)]),
        post(files={"image": face_jpeg}, data={"surprise": "1"}),
        post(files={"image": face_jpeg}, data={"min_face": "-3"}),
        post(files={"image": face_jpeg}, data={"min_face": ["20", "30"]}),
        post(files={"other": ("", b"")}, data={"image": "text"}),
        client.post("/v1/verify", files=[("images", face_jpeg)]),
        client.post("/v1/verify", files=[("images", face_jpeg)] * 3),
    ):
        assert answer.status_code in (400, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    fine = post(files={"image": face_jpeg}, data={"min_face": ""})  # an empty field of a form is no value
    assert fine.status_code == 200


def test_deep_and_strange_json(client: httpx.Client) -> None:
    for body in (
        b"[" * 100_000,
        b'{"metadata":' + b'{"a":' * 400 + b"1" + b"}" * 400 + b"}",
        b'{"metadata": {"x": NaN}}',
        b'{"metadata": {"x": "\\ud800"}}',
        b'{"metadata": {"x": "\\u0000"}}',
        b'{"name": "\\u0000"}',
        b"\xff\xfe",
        b"null",
    ):
        response = client.post("/v1/galleries", content=body, headers={"content-type": "application/json"})
        assert_problem(response, 422, "invalid_request")


@pytest.fixture(scope="module")
def small(
    toy_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    limits = {"image_bytes": 100_000, "json_bytes": 2000, "images_per_request": 2, "image_side": 600}
    with serving(toy_settings(tmp_path_factory.mktemp("small"), limits=limits)) as running:
        yield running


def test_large_files_are_refused(small: Running, face_jpeg: bytes) -> None:
    assert small.client.post("/v1/detect", files={"image": face_jpeg}).status_code == 200
    padded = face_jpeg + b"\0" * (100_001 - len(face_jpeg))
    assert_problem(small.client.post("/v1/detect", files={"image": padded}), 413, "image_too_large")
    huge = face_jpeg + b"\0" * 300_000
    assert_problem(small.client.post("/v1/detect", files={"image": huge}), 413, "body_too_large")
    assert_problem(
        small.client.post("/v1/galleries", json={"name": "x", "metadata": {"x": "y" * 2000}}),
        413,
        "body_too_large",
    )


def test_an_announced_length_is_refused_before_the_first_byte(small: Running) -> None:
    """The client sends nothing but its header and gets its answer."""
    host, port = small.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        answer = connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 413")
    assert "body_too_large" in answer or "application/problem+json" in answer


def test_a_body_without_a_length_is_counted_while_it_is_read(small: Running) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
        while sent < 50_000_000:
            sent += 65536
            yield b"\0" * 65536

    try:
        response = small.client.post(
            "/v1/detect", content=endless(), headers={"content-type": "multipart/form-data; boundary=b"}
        )
        assert_problem(response, 413, "body_too_large")
    except httpx.TransportError:  # the server may close before the client listens
        pass
    assert sent < 50_000_000
    assert small.client.get("/healthz").status_code == 200


def test_too_many_images(small: Running, face_jpeg: bytes) -> None:
    small_face = face_jpeg[:1000]
    response = small.client.post(
        "/v1/galleries/default/identities/x/faces",
        files=[("images", small_face)] * 4,
        data={"create": "true"},
    )
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"


def test_request_ids(client: httpx.Client) -> None:
    assert (
        client.get("/healthz", headers={"X-Request-ID": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    )
    for strange in (b"a b", b"x" * 65, b"<script>", b"\xfc", b"-a", b""):
        answered = client.get("/healthz", headers={"X-Request-ID": strange}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", answered)
    one, two = (client.get("/healthz").headers["x-request-id"] for _ in range(2))
    assert one != two


def test_an_unforeseen_error_reveals_nothing(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError(f"{SECRET} in /srv/private/path")

    monkeypatch.setattr(server.parts.gallery, "check", broken)
    with caplog.at_level(logging.ERROR, logger="sphereid.error"):
        response = server.client.get("/readyz")
    problem = assert_problem(response, 500, "internal_error")
    assert SECRET not in response.text
    assert "/srv" not in response.text
    assert "Traceback" not in response.text
    assert any(str(problem["request_id"]) in record.getMessage() for record in caplog.records)
    monkeypatch.undo()
    assert server.client.get("/readyz").status_code == 200


def test_trouble_with_the_storage_is_a_503_without_its_path(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sphereid.storage.errors import StorageError

    def broken() -> None:
        raise StorageError("disk full at /srv/private/path")

    monkeypatch.setattr(server.parts.gallery, "check", broken)
    response = server.client.get("/readyz")
    assert_problem(response, 503, "storage_error")
    assert response.headers["retry-after"].isdigit()
    assert "/srv" not in response.text


def test_the_log_holds_no_image_no_name_and_no_id(
    client: httpx.Client, face_jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    from sphereid.api.logs import JsonFormatter

    with caplog.at_level(logging.DEBUG):
        client.post(
            f"/v1/galleries/default/identities/{SECRET}/faces",
            files={"images": (f"{SECRET}.jpg", face_jpeg)},
            data={"create": "true", "name": SECRET},
        ).raise_for_status()
        client.delete(f"/v1/galleries/default/identities/{SECRET}").raise_for_status()
    ours = [record for record in caplog.records if record.name.startswith(("sphereid", "app"))]
    lines = [JsonFormatter().format(record) for record in ours]
    assert lines
    assert not any(SECRET in line for line in lines)
    access = next(json.loads(line) for line in lines if '"status": 201' in line)
    assert access["route"] == "/v1/galleries/{gallery}/identities/{identity}/faces"
    assert access["request_id"]
    assert access["duration_ms"] > 0
    assert access["stages_ms"]["detect"] > 0
