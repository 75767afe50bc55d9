"""Idempotency-Key: a repeated write has one effect and one answer."""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sphereid.settings import Settings

from tests.api.conftest import assert_problem
from tests.server import serving


@pytest.fixture
def key() -> dict[str, str]:
    return {"Idempotency-Key": secrets.token_hex(8)}


def test_a_repeated_enrollment_adds_one_face(
    client: httpx.Client, gallery: str, face_jpeg: bytes, key: dict[str, str]
) -> None:
    path = f"{gallery}/identities/eileen/faces"

    def post(name: str = "a.jpg") -> httpx.Response:
        # every request has another multipart boundary; a file may have been renamed on its way
        return client.post(path, files={"images": (name, face_jpeg)}, data={"create": "true"}, headers=key)

    first, second, third = post(), post(), post("b.jpg")
    assert first.status_code == second.status_code == third.status_code == 201
    assert first.content == second.content == third.content
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert client.get(gallery).json()["faces"] == 1
    assert (
        client.post(path, files={"images": face_jpeg}).status_code == 201
    )  # without the key it is a new one
    assert client.get(gallery).json()["faces"] == 2


def test_the_same_key_at_the_same_time(
    client: httpx.Client, gallery: str, face_jpeg: bytes, key: dict[str, str]
) -> None:
    def post(_: int) -> httpx.Response:
        path = f"{gallery}/identities/eileen/faces"
        return client.post(path, files={"images": face_jpeg}, data={"create": "true"}, headers=key)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(post, range(6)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert client.get(gallery).json()["faces"] == 1


def test_another_request_under_the_same_key_is_refused(
    client: httpx.Client, gallery: str, face_jpeg: bytes, dimmed_jpeg: bytes, key: dict[str, str]
) -> None:
    client.post(f"{gallery}/identities", json={"id": "a"}, headers=key).raise_for_status()
    for method, path, body in (
        ("POST", f"{gallery}/identities", {"id": "b"}),
        ("PATCH", f"{gallery}/identities/a", {"name": "b"}),
    ):
        assert_problem(client.request(method, path, json=body, headers=key), 409, "idempotency_conflict")
    assert client.get(f"{gallery}/identities/b").status_code == 404


def test_every_write_takes_a_key(client: httpx.Client, gallery: str, face_jpeg: bytes) -> None:
    name = f"once-{secrets.token_hex(3)}"
    path = f"/v1/galleries/{name}"
    face = f"{path}/identities/eve/faces"
    writes: list[tuple[str, str, dict[str, object]]] = [
        ("POST", "/v1/galleries", {"json": {"id": name}}),
        ("PATCH", path, {"json": {"name": "Once"}}),
        ("POST", f"{path}/identities", {"json": {"id": "eve"}}),
        ("PATCH", f"{path}/identities/eve", {"json": {"name": "Eve"}}),
        ("POST", face, {"files": {"images": face_jpeg}}),
        ("DELETE", f"{path}/identities/eve", {}),
        ("DELETE", path, {}),
    ]
    for method, target, body in writes:
        headers = {"Idempotency-Key": secrets.token_hex(8)}
        first = client.request(method, target, headers=headers, **body)  # type: ignore[arg-type]
        again = client.request(method, target, headers=headers, **body)  # type: ignore[arg-type]
        assert first.is_success, first.text
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["idempotent-replayed"] == "true"


def test_an_error_is_not_remembered(
    client: httpx.Client, gallery: str, face_jpeg: bytes, key: dict[str, str]
) -> None:
    path = f"{gallery}/identities/late/faces"
    missing = client.post(path, files={"images": face_jpeg}, headers=key)
    assert_problem(missing, 404, "identity_not_found")
    client.post(f"{gallery}/identities", json={"id": "late"}).raise_for_status()
    assert client.post(path, files={"images": face_jpeg}, headers=key).status_code == 201


@pytest.mark.parametrize("bad", ["", "x" * 256, "with space", "\xe9"])
def test_keys_that_are_none(client: httpx.Client, bad: str) -> None:
    response = client.post(
        "/v1/galleries", json={"id": "-"}, headers={"Idempotency-Key": bad.encode("latin-1")}
    )
    assert_problem(response, 422, "invalid_request")


def test_a_key_of_another_client_gets_nothing_of_its_answers(
    toy_settings: Callable[..., Settings], tmp_path: Path, key: dict[str, str]
) -> None:
    with serving(toy_settings(tmp_path, api_keys="key-of-client-a,key-of-client-b")) as running:
        body = {"id": "ada", "name": "Ada"}
        one, other = ({"Authorization": f"Bearer key-of-client-{client}"} | key for client in "ab")
        path = "/v1/galleries/default/identities"
        assert running.client.post(path, json=body, headers=one).status_code == 201
        assert running.client.post(path, json=body, headers=one).headers["idempotent-replayed"] == "true"
        assert_problem(running.client.post(path, json=body, headers=other), 409, "identity_exists")
