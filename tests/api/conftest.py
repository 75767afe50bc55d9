"""One real server with the toy model for the whole session, and the pictures that the tests send."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from sphereid.settings import Settings

from tests.server import Running, jpeg, serving, settings_for
from tests.toy import write_toy_model


@pytest.fixture(scope="session")
def toy_settings(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Settings]:
    """Makes settings for a server of its own: an empty data folder, the toy model."""
    models = tmp_path_factory.mktemp("toy")
    write_toy_model(models / "models")

    def make(folder: Path, **changes: object) -> Settings:
        return settings_for(folder, **({"models_dir": models / "models"} | changes))

    return make


@pytest.fixture(scope="session")
def server(
    toy_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with serving(toy_settings(tmp_path_factory.mktemp("server"))) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Running) -> httpx.Client:
    return server.client


@pytest.fixture
def gallery(client: httpx.Client) -> str:
    """The path of a new, empty gallery with a fixed threshold of 0.9."""
    name = f"g-{secrets.token_hex(4)}"
    policy = {"type": "cosine", "value": 0.9}
    client.post("/v1/galleries", json={"id": name, "policy": policy}).raise_for_status()
    return f"/v1/galleries/{name}"


@pytest.fixture(scope="session")
def face_jpeg(portrait: NDArray[np.uint8]) -> bytes:
    """A portrait, 512x512."""
    return jpeg(portrait)


@pytest.fixture(scope="session")
def dimmed_jpeg(portrait: NDArray[np.uint8]) -> bytes:
    """The same portrait, darker, shifted and compressed harder."""
    dim = (portrait.astype(np.float32) * 0.85).astype(np.uint8)
    return jpeg(np.ascontiguousarray(dim[4:, 6:]), quality=70)


@pytest.fixture(scope="session")
def stranger_jpeg(portrait: NDArray[np.uint8]) -> bytes:
    """A face that the toy model takes for somebody else: the portrait in light that falls from above."""
    height = np.linspace(0, 1, 512)[:, None, None]
    light = 1.5 - 1.3 * np.clip((height - 0.11) / 0.23, 0, 1)
    return jpeg((portrait * light).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def two_faces_jpeg(portrait: NDArray[np.uint8]) -> bytes:
    """Two faces, the larger one at the left."""
    small = portrait[::2, ::2]
    canvas = np.full((512, 512 + 256, 3), 127, np.uint8)
    canvas[:, :512] = portrait
    canvas[:256, 512:] = small
    return jpeg(canvas)


@pytest.fixture(scope="session")
def no_face_jpeg() -> bytes:
    ramp = np.linspace(0, 255, 320, dtype=np.uint8)
    return jpeg(np.repeat(np.tile(ramp, (240, 1))[:, :, None], 3, axis=2))


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """The answer is an RFC 9457 document of ours with this status and code; returns it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, object] = response.json()
    assert document["code"] == code, document
    assert document["status"] == status
    assert document["type"] == f"urn:sphereid:problem:{code}"
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == response.headers["x-request-id"]
    return document
