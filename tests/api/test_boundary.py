"""What a website can make a visitor's browser send, and what it gets for it."""

from collections.abc import Callable, Iterator

import httpx
import pytest
from sphereid.settings import Settings
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.api.conftest import assert_problem
from tests.server import Running, serving

APP = "https://app.example.org"


@pytest.fixture(scope="module")
def shared(
    toy_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """Has a key, a page of its own elsewhere, and one name."""
    more = {"api_keys": "a-key-of-this-test", "cors_origins": APP, "allowed_hosts": "faces.example.org"}
    with serving(toy_settings(tmp_path_factory.mktemp("shared"), **more)) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/snapshot"),
        ("GET", "/v1/galleries"),
        ("DELETE", "/v1/galleries/default"),
        ("POST", "/v1/galleries"),
    ],
)
def test_a_name_that_points_here_opens_nothing(client: httpx.Client, method: str, path: str) -> None:
    rebound = {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}
    assert_problem(client.request(method, path, headers=rebound), 403, "host_not_allowed")


@pytest.mark.parametrize(
    "host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST.", "192.168.1.7"]
)
def test_names_of_this_machine_and_addresses_do(client: httpx.Client, host: str) -> None:
    assert client.get("/v1/galleries", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_another_page_changes_nothing(
    client: httpx.Client, face_jpeg: bytes, headers: dict[str, str], gallery: str
) -> None:
    form = client.post(
        f"{gallery}/identities/planted/faces",
        files={"images": face_jpeg},
        data={"create": "true"},
        headers=headers,
    )
    assert_problem(form, 403, "cross_site")
    assert_problem(client.post(f"{gallery}/export", headers=headers), 403, "cross_site")
    assert client.get(f"{gallery}/identities/planted").status_code == 404


def test_the_service_s_own_pages_do(server: Running, gallery: str) -> None:
    own = {"Origin": server.url}
    assert server.client.post(f"{gallery}/identities", json={}, headers=own).status_code == 201
    behind_a_proxy = {"Origin": "https://faces.example.org", "Sec-Fetch-Site": "same-origin"}
    assert server.client.post(f"{gallery}/identities", json={}, headers=behind_a_proxy).status_code == 201


def test_a_live_stream_opens_for_the_own_page_alone(server: Running) -> None:
    address = server.url.replace("http", "ws", 1) + "/v1/galleries/default/stream"
    for origin in ("http://evil.example", "null"):
        with pytest.raises(InvalidStatus) as refused:
            connect(address, origin=origin)  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403
    with connect(address, origin=server.url):  # type: ignore[arg-type]
        pass


def test_a_named_page_may_call_with_its_key(shared: Running) -> None:
    known = {"Host": "faces.example.org", "Origin": APP}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = shared.client.options("/v1/galleries", headers=known | asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == APP
    key = {"Authorization": "Bearer a-key-of-this-test", "Sec-Fetch-Site": "cross-site"}
    made = shared.client.post("/v1/galleries", json={}, headers=known | key)
    assert made.status_code == 201
    assert made.headers["access-control-allow-origin"] == APP
    refused = shared.client.post("/v1/galleries", json={}, headers=known)
    assert_problem(refused, 401, "unauthorized")
    assert refused.headers["access-control-allow-origin"] == APP


def test_a_page_that_is_not_named_may_not(shared: Running) -> None:
    other = {"Host": "faces.example.org", "Origin": "https://other.example"}
    asked = {"Access-Control-Request-Method": "POST"}
    assert (
        "access-control-allow-origin"
        not in shared.client.options("/v1/galleries", headers=other | asked).headers
    )
    key = {"Authorization": "Bearer a-key-of-this-test"}
    assert_problem(shared.client.post("/v1/galleries", json={}, headers=other | key), 403, "cross_site")
    elsewhere = {"Host": "other.example"} | key
    assert_problem(shared.client.get("/v1/galleries", headers=elsewhere), 403, "host_not_allowed")


@pytest.mark.parametrize("path", ["/healthz", "/v1/galleries", "/v1/no-such-route", "/docs", "/", "/metrics"])
def test_every_answer_says_what_a_browser_may_make_of_it(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "origin", ["app.example.org", "https://app.example.org/page", "https://*", "ftp://x"]
)
def test_what_is_no_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ValueError, match="no origin"):
        Settings(_env_file=None, cors_origins=origin)
