"""The inbox of unknown faces over HTTP: kept when allowed, named, discarded."""

from io import BytesIO

import httpx
import pytest
from PIL import Image

from tests.server import Running


def identify(client: httpx.Client, gallery: str, picture: bytes) -> dict[str, object]:
    answer = client.post(f"{gallery}/identify", files={"image": ("door.jpg", picture, "image/jpeg")})
    answer.raise_for_status()
    (face,) = answer.json()["faces"]
    return face


@pytest.fixture
def keeping(client: httpx.Client, gallery: str) -> str:
    answer = client.patch(f"{gallery}/unknowns", json={"keep": True, "days": 7})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["keep"], answer.json()["most"], answer.json()["days"]) == (True, 500, 7)
    return gallery


def test_an_inbox_is_empty_until_it_is_allowed(client: httpx.Client, gallery: str, face_jpeg: bytes) -> None:
    assert identify(client, gallery, face_jpeg)["decision"] == "unknown"
    inbox = client.get(f"{gallery}/unknowns").json()
    assert (inbox["keep"], inbox["faces"], inbox["clusters"]) == (False, 0, [])


def test_an_unknown_face_is_kept_named_and_known(
    client: httpx.Client, keeping: str, face_jpeg: bytes, dimmed_jpeg: bytes
) -> None:
    for picture in (face_jpeg, face_jpeg, dimmed_jpeg):
        assert identify(client, keeping, picture)["decision"] == "unknown"
    inbox = client.get(f"{keeping}/unknowns").json()
    assert inbox["faces"] == 1  # the same photograph once, also darker
    (group,) = inbox["clusters"]
    assert group["nearest"] is None
    assert {face["source"] for face in group["faces"]} == {"door.jpg"}
    picture = client.get(f"{keeping}/unknowns/{group['id']}/picture")
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.headers["cache-control"] == "no-store"
    assert min(Image.open(BytesIO(picture.content)).size) > 50

    body = {"faces": [face["id"] for face in group["faces"]], "identity": "eileen", "name": "Eileen"}
    headers = {"Idempotency-Key": f"name-{group['id']}"}
    named = client.post(f"{keeping}/unknowns/name", json=body, headers=headers)
    again = client.post(f"{keeping}/unknowns/name", json=body, headers=headers)
    assert named.status_code == again.status_code == 201
    assert named.json() == again.json()
    assert (named.json()["identity"]["name"], named.json()["faces"]) == ("Eileen", 1)
    assert client.get(f"{keeping}/unknowns").json()["faces"] == 0
    assert client.get(f"{keeping}/unknowns/{group['id']}/picture").json()["code"] == "unknown_not_found"
    assert identify(client, keeping, face_jpeg)["decision"] == "match"
    assert client.get(f"{keeping}/unknowns").json()["faces"] == 0


def test_whom_a_group_resembles_is_said(
    client: httpx.Client, keeping: str, face_jpeg: bytes, dimmed_jpeg: bytes
) -> None:
    client.patch(keeping, json={"policy": {"type": "cosine", "value": 1.0}}).raise_for_status()
    enroll = {"create": "true", "name": "Eileen"}
    files = {"images": ("a.jpg", face_jpeg, "image/jpeg")}
    client.post(f"{keeping}/identities/eileen/faces", files=files, data=enroll).raise_for_status()
    assert identify(client, keeping, dimmed_jpeg)["decision"] == "unknown"
    (group,) = client.get(f"{keeping}/unknowns").json()["clusters"]
    assert group["nearest"]["identity"]["name"] == "Eileen"
    assert 0.8 < group["nearest"]["similarity"] < 1


def test_discarded_faces_are_gone(client: httpx.Client, keeping: str, face_jpeg: bytes) -> None:
    identify(client, keeping, face_jpeg)
    (group,) = client.get(f"{keeping}/unknowns").json()["clusters"]
    wrong = client.post(f"{keeping}/unknowns/discard", json={"faces": [group["id"], "other"]})
    assert (wrong.status_code, wrong.json()["code"]) == (404, "unknown_not_found")
    receipt = client.post(f"{keeping}/unknowns/discard", json={"faces": [group["id"]]}).json()
    assert receipt == {"faces": 1, "scrubbed": True}
    identify(client, keeping, face_jpeg)
    assert client.delete(f"{keeping}/unknowns").json() == {"faces": 1, "scrubbed": True}
    identify(client, keeping, face_jpeg)
    assert client.patch(f"{keeping}/unknowns", json={"keep": False}).json()["faces"] == 0
    identify(client, keeping, face_jpeg)
    assert client.get(f"{keeping}/unknowns").json()["faces"] == 0


def test_a_full_inbox_does_not_spoil_an_answer(
    server: Running, client: httpx.Client, keeping: str, face_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sphereid.storage.errors import StorageError

    def refuse(*_: object, **__: object) -> int:
        raise StorageError("the disk is full")

    monkeypatch.setattr(server.parts.gallery.unknowns, "keep", refuse)
    assert identify(client, keeping, face_jpeg)["decision"] == "unknown"
