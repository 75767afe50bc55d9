"""Pictures of enrolled faces: there where the gallery keeps them, and nowhere else."""

import secrets
from io import BytesIO

import httpx
import pytest
from PIL import Image

from tests.api.conftest import assert_problem


def person(client: httpx.Client, picture: bytes, **gallery: object) -> tuple[str, str]:
    """Someone in a new gallery: the identity's path and the face's id."""
    name = f"g-{secrets.token_hex(4)}"
    client.post("/v1/galleries", json={"id": name, **gallery}).raise_for_status()
    path = f"/v1/galleries/{name}/identities/ada"
    files = {"images": ("ada.jpg", picture)}
    enrolled = client.post(f"{path}/faces", data={"create": "true"}, files=files)
    enrolled.raise_for_status()
    return path, enrolled.json()["faces"][0]["id"]


def test_a_gallery_that_keeps_crops_shows_them(client: httpx.Client, face_jpeg: bytes) -> None:
    path, face = person(client, face_jpeg, keep_crops=True)
    shown = client.get(f"{path}/faces/{face}/picture")
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
    assert shown.headers["cache-control"] == "no-store"
    with Image.open(BytesIO(shown.content)) as image:
        assert 50 < min(image.size) <= max(image.size) <= 384
    assert client.get(f"{path}/picture").content == shown.content


def test_the_best_face_stands_for_an_identity(
    client: httpx.Client, face_jpeg: bytes, dimmed_jpeg: bytes
) -> None:
    path, _ = person(client, dimmed_jpeg, keep_crops=True)
    client.post(f"{path}/faces", files={"images": ("b.jpg", face_jpeg)}).raise_for_status()
    faces = client.get(f"{path}/faces").json()["items"]
    assert faces[0]["quality"] != faces[1]["quality"]
    best = max(faces, key=lambda face: float(face["quality"]))
    assert client.get(f"{path}/picture").content == client.get(f"{path}/faces/{best['id']}/picture").content


@pytest.mark.parametrize("what", ["picture", "faces/{face}/picture"])
def test_where_nothing_was_kept_there_is_no_picture(
    client: httpx.Client, face_jpeg: bytes, what: str
) -> None:
    path, face = person(client, face_jpeg)
    assert_problem(client.get(f"{path}/{what.format(face=face)}"), 404, "picture_not_found")
    nobody = path.replace("ada", "bob")
    assert_problem(client.get(f"{nobody}/{what.format(face=face)}"), 404, "identity_not_found")
    assert_problem(client.get(f"{path}/faces/none/picture"), 404, "face_not_found_in_gallery")
