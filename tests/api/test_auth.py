"""Keys: who may do what, and what everybody may see."""

from collections.abc import Callable, Iterator

import httpx
import pytest
from sphereid.settings import Settings

from tests.api.conftest import assert_problem
from tests.server import Running, serving

KEYS = "first-key-0123456789,second-key-0123456789"


@pytest.fixture(scope="module")
def locked(
    toy_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with serving(toy_settings(tmp_path_factory.mktemp("locked"), api_keys=KEYS)) as running:
        yield running


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/openapi.json", "/docs", "/static/docs/swagger-ui.css"]
)
def test_open_to_everybody(locked: Running, path: str) -> None:
    assert locked.client.get(path).status_code == 200


@pytest.mark.parametrize("key", KEYS.split(","))
def test_each_key_opens(locked: Running, key: str) -> None:
    for scheme in ("Bearer", "bearer"):
        answer = locked.client.get("/v1/galleries", headers={"Authorization": f"{scheme} {key}"})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer first-key-012345678",
        "Bearer first-key-0123456789x",
        f"Bearer {KEYS}",
        "Basic first-key-0123456789",
        "first-key-0123456789",
        "Bearer \xe9\xff",
    ],
)
def test_anything_else_does_not(locked: Running, header: str | None, face_jpeg: bytes) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    requests: list[tuple[str, str, dict[str, object]]] = [
        ("GET", "/v1/galleries", {}),
        ("GET", "/metrics", {}),
        ("GET", "/v1/no-such-route", {}),
        ("POST", "/v1/galleries", {"json": {"id": "made-without-key"}}),
        ("POST", "/v1/detect", {"files": {"image": face_jpeg}}),
        ("DELETE", "/v1/galleries/default", {}),
    ]
    for method, path, kwargs in requests:
        answer: httpx.Response = locked.client.request(method, path, headers=headers, **kwargs)  # type: ignore[arg-type]
        assert_problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    good = {"Authorization": f"Bearer {KEYS.split(',')[0]}"}
    missing = locked.client.get("/v1/galleries/made-without-key", headers=good)
    assert_problem(missing, 404, "gallery_not_found")


def test_without_keys_nobody_is_asked(client: httpx.Client) -> None:
    assert client.get("/v1/galleries").status_code == 200
    assert client.get("/v1/galleries", headers={"Authorization": "Bearer whatever"}).status_code == 200


def test_another_website_cannot_enroll_through_a_visitors_browser(
    toy_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}
    with serving(toy_settings(tmp_path_factory.mktemp("open"))) as running:
        refused = running.client.post("/v1/galleries", json={"id": "planted"}, headers=foreign)
        assert_problem(refused, 403, "cross_site")
        assert running.client.get("/v1/galleries/planted").status_code == 404
        for site in ("same-origin", "none"):
            made = running.client.post("/v1/galleries", json={}, headers={"Sec-Fetch-Site": site})
            assert made.status_code == 201
        assert running.client.get("/v1/galleries", headers=foreign).status_code == 200
