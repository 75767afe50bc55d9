"""Galleries, identities and faces: made, listed, changed, deleted."""

import secrets
from pathlib import Path

import httpx
import pytest
from sphereid.gallery.service import GalleryService
from sphereid.gallery.store.backup import restore

from tests.api.conftest import assert_problem
from tests.server import Running


def test_default_always_exists(client: httpx.Client) -> None:
    shown = client.get("/v1/galleries/default").json()
    assert shown["id"] == "default"
    assert shown["policy"] == {"type": "fpir", "target": 0.01}
    assert_problem(client.delete("/v1/galleries/default"), 409, "gallery_protected")


def test_a_gallery_lives_and_dies(client: httpx.Client) -> None:
    name = f"staff-{secrets.token_hex(3)}"
    body = {
        "id": name,
        "name": "Staff",
        "metadata": {"floor": 3},
        "policy": {"type": "fpir", "target": 0.05},
        "ambiguity_margin": 0.1,
        "template": "mean",
    }
    made = client.post("/v1/galleries", json=body)
    assert made.status_code == 201
    shown = client.get(f"/v1/galleries/{name}").json()
    assert shown == made.json()
    assert {key: shown[key] for key in body} == body
    assert shown["threshold"]["policy"] == "fpir"
    assert shown["threshold"]["target"] == 0.05
    assert (shown["identities"], shown["faces"], shown["contract"]) == (0, 0, None)
    assert_problem(client.post("/v1/galleries", json=body), 409, "gallery_exists")
    receipt = client.delete(f"/v1/galleries/{name}").json()
    assert receipt == {"identities": 0, "faces": 0, "revision": None, "scrubbed": True}
    assert_problem(client.get(f"/v1/galleries/{name}"), 404, "gallery_not_found")


def test_ids_are_made_when_left_out(client: httpx.Client, gallery: str) -> None:
    made = [client.post(f"{gallery}/identities", json={}).json()["id"] for _ in range(3)]
    assert len(set(made)) == 3
    assert made == sorted(made)
    unnamed = client.post("/v1/galleries", json={}).json()
    client.delete(f"/v1/galleries/{unnamed['id']}").raise_for_status()


def test_patch_changes_only_what_is_sent(client: httpx.Client, gallery: str) -> None:
    before = client.get(gallery).json()
    after = client.patch(gallery, json={"name": "New"}).json()
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"name", "revision", "updated_at"}
    after = client.patch(
        gallery, json={"policy": {"type": "fpir", "target": 0.2}, "metadata": {"a": 1}}
    ).json()
    assert after["policy"] == {"type": "fpir", "target": 0.2}
    assert (after["name"], after["metadata"]) == ("New", {"a": 1})
    assert client.patch(gallery, json={"metadata": {"b": 2}}).json()["metadata"] == {"b": 2}
    assert client.patch(gallery, json={}).json()["metadata"] == {"b": 2}

    client.post(f"{gallery}/identities", json={"id": "eve", "name": "Eve", "metadata": {"x": [1, None]}})
    person = client.patch(f"{gallery}/identities/eve", json={"name": "Eva"}).json()
    assert (person["name"], person["metadata"]) == ("Eva", {"x": [1, None]})


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"policy": None},
        {"policy": {"type": "cosine", "value": 2}},
        {"policy": {"type": "magic"}},
        {"template": "worst"},
        {"unknown": 1},
        {"metadata": "text"},
        {"metadata": {"long": "x" * 20_000}},
        {"name": "x" * 201},
        {"name": "bell\u0007"},
        {"ambiguity_margin": -0.1},
        [],
        "text",
    ],
)
def test_bad_changes_change_nothing(client: httpx.Client, gallery: str, change: object) -> None:
    before = client.get(gallery).json()
    assert_problem(client.patch(gallery, json=change), 422, "invalid_request")
    assert client.get(gallery).json() == before


def test_lists_page_by_cursor(client: httpx.Client, gallery: str) -> None:
    ids = [f"p{i:02}" for i in range(7)]
    for each in ids:
        client.post(f"{gallery}/identities", json={"id": each, "name": f"Person {each}"}).raise_for_status()
    seen: list[str] = []
    cursor = None
    pages = 0
    while True:
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = client.get(f"{gallery}/identities", params=params).json()
        seen += [item["id"] for item in page["items"]]
        pages += 1
        if (cursor := page["next_cursor"]) is None:
            break
        client.delete(
            f"{gallery}/identities/{seen[-1]}"
        ).raise_for_status()  # a page stays right nevertheless
    assert (seen, pages) == (ids, 3)
    found = client.get(f"{gallery}/identities", params={"name": "PERSON P02"}).json()["items"]
    assert [item["id"] for item in found] == []  # it was deleted above
    found = client.get(f"{gallery}/identities", params={"name": "PERSON P04"}).json()["items"]
    assert [item["id"] for item in found] == ["p04"]


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "cursor=nonsense!"])
def test_bad_pages_are_refused(client: httpx.Client, query: str) -> None:
    assert_problem(client.get(f"/v1/galleries?{query}"), 422, "invalid_request")


@pytest.mark.parametrize("name", ["-x", "a b", "ä", "x" * 65, "%00", "a%2Fb", "..", "a;b"])
def test_ids_that_are_none(client: httpx.Client, name: str) -> None:
    response = client.get(f"/v1/galleries/{name}")
    assert response.status_code in (404, 422)
    assert response.headers["content-type"] == "application/problem+json"
    created = client.post("/v1/galleries", json={"id": name})
    assert_problem(created, 422, "invalid_request")


def test_faces_are_listed(client: httpx.Client, gallery: str, face_jpeg: bytes, dimmed_jpeg: bytes) -> None:
    files = [("images", ("one.jpg", face_jpeg)), ("images", ("C:\\private\\two.jpg", dimmed_jpeg))]
    path = f"{gallery}/identities/eileen/faces"
    made = client.post(path, files=files, data={"create": "true", "name": "Eileen"}).json()
    listed = client.get(path).json()
    assert listed["items"] == made["faces"]
    assert listed["next_cursor"] is None
    assert [face["source"] for face in listed["items"]] == ["one.jpg", "two.jpg"]
    assert client.get(f"{gallery}/identities/eileen").json()["name"] == "Eileen"
    assert not any("embedding" in face or "vector" in face for face in listed["items"])
    receipt = client.delete(f"{gallery}/identities/eileen").json()
    assert (receipt["identities"], receipt["faces"]) == (1, 2)


def test_two_identities_become_one(
    client: httpx.Client, gallery: str, face_jpeg: bytes, stranger_jpeg: bytes
) -> None:
    for name, image in (("a", face_jpeg), ("b", stranger_jpeg)):
        enrolled = client.post(
            f"{gallery}/identities/{name}/faces",
            files={"images": image},
            data={"create": "true", "name": name.upper()},
        )
        enrolled.raise_for_status()
    assert client.post(f"{gallery}/identities/a/merge", json={"source": "a"}).status_code == 422
    assert client.post(f"{gallery}/identities/a/merge", json={"source": "nobody"}).status_code == 404
    merged = client.post(
        f"{gallery}/identities/a/merge", json={"source": "b"}, headers={"Idempotency-Key": gallery}
    )
    assert (merged.status_code, merged.json()["name"], merged.json()["faces"]) == (200, "A", 2)
    again = client.post(
        f"{gallery}/identities/a/merge", json={"source": "b"}, headers={"Idempotency-Key": gallery}
    )
    assert again.content == merged.content
    assert client.get(f"{gallery}/identities/b").status_code == 404
    for image in (face_jpeg, stranger_jpeg):
        (found,) = client.post(f"{gallery}/identify", files={"image": image}).json()["faces"]
        assert found["identity"]["id"] == "a"


def test_the_snapshot_is_a_download_that_can_be_restored(
    client: httpx.Client, gallery: str, face_jpeg: bytes, server: Running, tmp_path: Path
) -> None:
    client.post(
        f"{gallery}/identities/ann/faces", files={"images": face_jpeg}, data={"create": "true"}
    ).raise_for_status()
    answer = client.get("/v1/snapshot")
    assert answer.headers["content-type"] == "application/vnd.sqlite3"
    assert ".snapshot" in answer.headers["content-disposition"]
    assert not list((server.parts.settings.data_dir / "outgoing").iterdir())
    file = tmp_path / "all.snapshot"
    file.write_bytes(answer.content)
    restore(file, f"sqlite:///{tmp_path}/new/gallery.db", tmp_path / "new")
    service = GalleryService.open(f"sqlite:///{tmp_path}/new/gallery.db", tmp_path / "new")
    assert service.get_identity(gallery.rsplit("/")[-1], "ann").faces == 1
    service.close()
