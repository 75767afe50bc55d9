"""The image routes over real HTTP: detect, embed, enroll, identify, verify."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sphereid.settings import Settings

from tests.api.conftest import assert_problem
from tests.server import jpeg, serving


def as_json(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def enrolled(client: httpx.Client, gallery: str, identity: str, *images: bytes, **fields: str) -> Any:
    files = [("images", (f"{identity}.jpg", image)) for image in images]
    response = client.post(
        f"{gallery}/identities/{identity}/faces", files=files, data={"create": "true", **fields}
    )
    assert response.status_code == 201, response.text
    return response.json()


def identify(client: httpx.Client, gallery: str, image: bytes, **fields: str) -> Any:
    response = client.post(f"{gallery}/identify", files={"image": image}, data=fields)
    assert response.status_code == 200, response.text
    return response.json()


def test_detect_finds_the_face_where_it_is(client: httpx.Client, face_jpeg: bytes) -> None:
    answer = client.post("/v1/detect", files={"image": face_jpeg}).json()
    assert answer["image"] == {"width": 512, "height": 512}
    (face,) = answer["faces"]
    box, landmarks = face["box"], np.array(face["landmarks"])
    assert 150 < box["x"] < 210
    assert 40 < box["y"] < 100
    assert 60 < box["width"] < 120
    assert 80 < box["height"] < 150
    assert landmarks.shape == (5, 2)
    inside = (landmarks > (box["x"], box["y"])) & (
        landmarks < (box["x"] + box["width"], box["y"] + box["height"])
    )
    assert inside.all()
    assert face["detection_score"] > 0.99
    assert 0 < face["quality"]["score"] <= 1
    assert {"queue", "decode", "detect"} <= set(answer["timings_ms"])


def test_json_and_multipart_give_the_same(client: httpx.Client, face_jpeg: bytes) -> None:
    form = client.post("/v1/detect", files={"image": face_jpeg}).json()
    plain = client.post("/v1/detect", json={"image": as_json(face_jpeg)}).json()
    url = {"base64": "data:image/jpeg;base64," + as_json(face_jpeg)["base64"]}
    from_browser = client.post("/v1/detect", json={"image": url}).json()
    assert form["faces"] == plain["faces"] == from_browser["faces"]


def test_no_face_is_an_answer(client: httpx.Client, gallery: str, no_face_jpeg: bytes) -> None:
    assert client.post("/v1/detect", files={"image": no_face_jpeg}).json()["faces"] == []
    assert client.post("/v1/embed", files={"image": no_face_jpeg}).json()["faces"] == []
    assert identify(client, gallery, no_face_jpeg)["faces"] == []


def test_boxes_are_in_the_pixels_that_were_sent(
    toy_settings: Callable[..., Settings], tmp_path: Path, portrait: NDArray[np.uint8]
) -> None:
    """Also when the photograph was decoded at reduced size, and when EXIF turns it."""
    large = Image.fromarray(portrait).resize((2048, 2048), Image.Resampling.BICUBIC)
    buffer, turned = io.BytesIO(), io.BytesIO()
    large.save(buffer, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise to stand upright
    large.transpose(Image.Transpose.ROTATE_90).save(turned, "JPEG", exif=exif)
    limits = {"decoded_pixels": 600 * 600}
    with serving(toy_settings(tmp_path, limits=limits)) as running:
        for data in (buffer, turned):
            answer = running.client.post("/v1/detect", files={"image": data.getvalue()}).json()
            assert answer["image"] == {"width": 2048, "height": 2048}
            box = answer["faces"][0]["box"]
            assert box["x"] + box["width"] / 2 == pytest.approx(4 * 224, abs=60)
            assert box["y"] + box["height"] / 2 == pytest.approx(4 * 117, abs=60)
            assert box["width"] == pytest.approx(4 * 90, rel=0.25)


def test_embeddings_are_unit_and_belong_to_the_model(client: httpx.Client, face_jpeg: bytes) -> None:
    answer = client.post("/v1/embed", files={"image": face_jpeg}).json()
    (face,) = answer["faces"]
    assert len(face["embedding"]) == 64
    assert np.linalg.norm(face["embedding"]) == pytest.approx(1, abs=1e-5)
    (model,) = client.get("/v1/models").json()["models"]
    assert answer["model"] == {"name": "toy", "contract": model["contract"]}
    assert model["active"]
    assert model["embedding_size"] == 64
    assert model["calibrated"]


def test_enroll_then_identify(
    client: httpx.Client, gallery: str, face_jpeg: bytes, dimmed_jpeg: bytes, stranger_jpeg: bytes
) -> None:
    client.post(f"{gallery}/identities", json={"id": "eileen", "name": "Eileen", "metadata": {"crew": 7}})
    answer = enrolled(client, gallery, "eileen", face_jpeg)
    assert len(answer["faces"]) == 1
    assert not answer["rejected"]
    assert not answer["duplicates"]
    assert answer["faces"][0]["source"] == "eileen.jpg"

    known = identify(client, gallery, dimmed_jpeg)
    (face,) = known["faces"]
    person = {"id": "eileen", "name": "Eileen", "metadata": {"crew": 7}}
    assert (face["decision"], face["reason"], face["identity"]) == ("match", "above_threshold", person)
    assert face["threshold"] == {"value": 0.9, "policy": "cosine", "target": None, "extrapolated": False}
    assert face["margins"]["to_threshold"] == pytest.approx(face["similarity"] - 0.9, abs=1e-5)
    assert face["candidates"][0]["identity"] == person
    assert face["candidates"][0]["face_id"] == answer["faces"][0]["id"]
    assert known["gallery"]["revision"] == answer["revision"]
    assert known["gallery"]["faces"] == 1
    assert {"queue", "decode", "detect", "embed", "search"} <= set(known["timings_ms"])

    (other,) = identify(client, gallery, stranger_jpeg)["faces"]
    assert (other["decision"], other["reason"], other["identity"]) == ("unknown", "below_threshold", None)
    assert other["similarity"] < 0.9
    assert other["candidates"][0]["identity"]["id"] == "eileen"


def test_the_threshold_of_a_request_wins(
    client: httpx.Client, gallery: str, face_jpeg: bytes, stranger_jpeg: bytes
) -> None:
    enrolled(client, gallery, "eileen", face_jpeg)
    (face,) = identify(client, gallery, stranger_jpeg, threshold="-1")["faces"]
    assert face["decision"] == "match"
    assert face["threshold"]["value"] == -1
    (face,) = identify(client, gallery, face_jpeg, threshold="1")["faces"]
    assert face["threshold"]["value"] == 1


def test_an_empty_gallery_knows_nobody(client: httpx.Client, gallery: str, face_jpeg: bytes) -> None:
    (face,) = identify(client, gallery, face_jpeg)["faces"]
    assert (face["decision"], face["reason"], face["candidates"]) == ("unknown", "empty_gallery", [])


def test_every_face_of_an_image_is_answered(
    client: httpx.Client, gallery: str, face_jpeg: bytes, two_faces_jpeg: bytes
) -> None:
    enrolled(client, gallery, "eileen", face_jpeg)
    faces = identify(client, gallery, two_faces_jpeg)["faces"]
    assert len(faces) == 2
    sizes = [face["box"]["width"] * face["box"]["height"] for face in faces]
    assert sizes == sorted(sizes, reverse=True)
    unique = identify(client, gallery, two_faces_jpeg, assign="unique", threshold="-1")["faces"]
    named = [face["identity"]["id"] for face in unique if face["identity"]]
    assert named == ["eileen"]


def test_the_quality_gate_rejects_when_asked(
    client: httpx.Client, gallery: str, portrait: NDArray[np.uint8]
) -> None:
    tiny = jpeg(np.ascontiguousarray(np.asarray(Image.fromarray(portrait).resize((150, 150)))))
    (face,) = identify(client, gallery, tiny, min_face="12")["faces"]
    assert "too_small" in face["quality"]["reasons"]
    assert face["decision"] == "unknown"
    (face,) = identify(client, gallery, tiny, min_face="12", quality="normal")["faces"]
    assert (face["decision"], face["reason"], face["candidates"]) == ("rejected", "too_small", [])


def test_partial_enrollment_says_what_was_left_out(
    client: httpx.Client, gallery: str, face_jpeg: bytes, no_face_jpeg: bytes, two_faces_jpeg: bytes
) -> None:
    answer = enrolled(client, gallery, "eileen", no_face_jpeg, face_jpeg, b"no image", two_faces_jpeg)
    assert len(answer["faces"]) == 1
    assert answer["rejected"] == [
        {"index": 0, "reasons": ["face_not_found"]},
        {"index": 2, "reasons": ["image_unsupported"]},
        {"index": 3, "reasons": ["multiple_faces"]},
    ]
    largest = enrolled(client, gallery, "largest", two_faces_jpeg, face="largest")
    assert len(largest["faces"]) == 1
    assert largest["duplicates"][0]["identity"]["id"] == "eileen"


@pytest.mark.parametrize(
    ("picture", "status", "code"),
    [
        ("no_face_jpeg", 422, "face_not_found"),
        ("two_faces_jpeg", 422, "multiple_faces"),
    ],
)
def test_nothing_is_stored_when_no_face_is_left(
    client: httpx.Client, gallery: str, request: pytest.FixtureRequest, picture: str, status: int, code: str
) -> None:
    image = request.getfixturevalue(picture)
    response = client.post(
        f"{gallery}/identities/nobody/faces", files={"images": image}, data={"create": "true"}
    )
    problem = assert_problem(response, status, code)
    assert problem["rejected"] == [{"index": 0, "reasons": [code]}]
    assert_problem(client.get(f"{gallery}/identities/nobody"), 404, "identity_not_found")


def test_duplicates_can_be_refused(client: httpx.Client, gallery: str, face_jpeg: bytes) -> None:
    enrolled(client, gallery, "eileen", face_jpeg)
    response = client.post(
        f"{gallery}/identities/again/faces",
        files={"images": face_jpeg},
        data={"create": "true", "duplicates": "refuse"},
    )
    assert_problem(response, 409, "duplicate_face")
    assert client.get(gallery).json()["faces"] == 1


def test_enrollment_wants_an_identity(client: httpx.Client, gallery: str, face_jpeg: bytes) -> None:
    response = client.post(f"{gallery}/identities/nobody/faces", files={"images": face_jpeg})
    assert_problem(response, 404, "identity_not_found")


def test_verify_two_images(
    client: httpx.Client, face_jpeg: bytes, dimmed_jpeg: bytes, stranger_jpeg: bytes, no_face_jpeg: bytes
) -> None:
    same = client.post("/v1/verify", files=[("images", face_jpeg), ("images", dimmed_jpeg)]).json()
    assert same["decision"] == "match"
    assert same["similarity"] > 0.9
    assert len(same["faces"]) == 2
    assert same["threshold"] == {"value": 0.65, "policy": "fpir", "target": 0.001, "extrapolated": False}
    pair = [as_json(face_jpeg), as_json(stranger_jpeg)]
    other = client.post("/v1/verify", json={"images": pair, "threshold": 0.95}).json()
    assert other["decision"] == "unknown"
    assert other["reason"] == "below_threshold"
    assert other["margins"]["to_threshold"] == pytest.approx(other["similarity"] - 0.95, abs=1e-5)
    missing = client.post("/v1/verify", files=[("images", face_jpeg), ("images", no_face_jpeg)])
    assert_problem(missing, 422, "face_not_found")


def test_similarity_is_the_cosine_of_the_embeddings(
    client: httpx.Client, face_jpeg: bytes, dimmed_jpeg: bytes
) -> None:
    one, two = (
        np.array(client.post("/v1/embed", files={"image": data}).json()["faces"][0]["embedding"])
        for data in (face_jpeg, dimmed_jpeg)
    )
    answer = client.post("/v1/verify", files=[("images", face_jpeg), ("images", dimmed_jpeg)]).json()
    assert answer["similarity"] == pytest.approx(float(one @ two), abs=1e-4)


def test_verify_an_identity(
    client: httpx.Client, gallery: str, face_jpeg: bytes, dimmed_jpeg: bytes, stranger_jpeg: bytes
) -> None:
    enrolled(client, gallery, "eileen", face_jpeg)
    path = f"{gallery}/identities/eileen/verify"
    good = client.post(path, files={"image": dimmed_jpeg}).json()
    assert good["decision"] == "match"
    assert good["identity"]["id"] == "eileen"
    bad = client.post(path, files={"image": stranger_jpeg}).json()
    assert bad["decision"] == "unknown"
    assert bad["similarity"] < 0.9
    nobody = client.post(f"{gallery}/identities/nobody/verify", files={"image": face_jpeg})
    assert_problem(nobody, 404, "identity_not_found")


def test_a_deleted_face_is_never_found_again(client: httpx.Client, gallery: str, face_jpeg: bytes) -> None:
    face = enrolled(client, gallery, "eileen", face_jpeg)["faces"][0]["id"]
    path = f"{gallery}/identities/eileen/faces/{face}"
    assert client.get(path).json()["id"] == face
    receipt = client.delete(path).json()
    assert (receipt["identities"], receipt["faces"], receipt["scrubbed"]) == (0, 1, True)
    assert_problem(client.get(path), 404, "face_not_found_in_gallery")
    assert identify(client, gallery, face_jpeg)["faces"][0]["decision"] == "unknown"


def test_a_box_says_which_face_to_enroll(
    client: httpx.Client, gallery: str, two_faces_jpeg: bytes, face_jpeg: bytes
) -> None:
    faces = client.post("/v1/detect", files={"image": two_faces_jpeg}).json()["faces"]
    large, small = (face["box"] for face in faces)
    path = f"{gallery}/identities/small/faces"

    def enroll(box: object, images: int = 1) -> httpx.Response:
        files = [("images", (f"{i}.jpg", two_faces_jpeg)) for i in range(images)]
        return client.post(path, files=files, data={"create": "true", "box": str(box), "quality": "off"})

    named = ",".join(str(small[side]) for side in ("x", "y", "width", "height"))
    assert_problem(enroll("0,0,20,20"), 422, "face_not_found")
    assert_problem(enroll("1,2,3"), 422, "invalid_request")
    assert_problem(enroll("1,2,3,0"), 422, "invalid_request")
    assert_problem(enroll(named, images=2), 422, "invalid_request")
    enroll(named).raise_for_status()
    found = client.post(
        f"{gallery}/identify", files={"image": two_faces_jpeg}, data={"threshold": "0.9999"}
    ).json()["faces"]
    assert [face["decision"] for face in found] == ["unknown", "match"]
    as_json = client.post(
        f"{gallery}/identities/large/faces",
        json={
            "images": [{"base64": base64.b64encode(two_faces_jpeg).decode()}],
            "create": True,
            "box": large,
        },
    )
    assert as_json.status_code == 201, as_json.text


def test_the_gallery_says_how_good_a_face_must_be(
    client: httpx.Client, gallery: str, portrait: NDArray[np.uint8]
) -> None:
    dark = (portrait * 0.12).astype(np.uint8)
    files = {"images": jpeg(dark)}
    path = f"{gallery}/identities/ann/faces"
    reasons = client.post("/v1/detect", files={"image": files["images"]}).json()["faces"][0]["quality"]
    assert reasons["reasons"], "the picture is too good for this test"
    assert client.get(gallery).json()["quality"] == "normal"
    assert client.patch(gallery, json={"quality": "strict"}).json()["quality"] == "strict"
    refused = client.post(path, files=files, data={"create": "true"})
    assert_problem(refused, 422, "low_quality")
    client.post(path, files=files, data={"create": "true", "quality": "off"}).raise_for_status()
    client.patch(gallery, json={"quality": "off"}).raise_for_status()
    client.post(path, files=files).raise_for_status()


def test_a_filter_narrows_lists_and_identification(
    client: httpx.Client, gallery: str, face_jpeg: bytes, stranger_jpeg: bytes
) -> None:
    for name, image, team in (("ann", face_jpeg, "blue"), ("bob", stranger_jpeg, "red")):
        body = {"id": name, "metadata": {"team": team, "level": 3}}
        client.post(f"{gallery}/identities", json=body).raise_for_status()
        client.post(f"{gallery}/identities/{name}/faces", files={"images": image}).raise_for_status()

    def listed(wanted: str) -> list[str]:
        answer = client.get(f"{gallery}/identities", params={"filter": wanted})
        return [each["id"] for each in answer.raise_for_status().json()["items"]]

    assert (listed("team:blue"), listed("level:3"), listed("team:red,level:4")) == (
        ["ann"],
        ["ann", "bob"],
        [],
    )
    assert_problem(client.get(f"{gallery}/identities", params={"filter": "team"}), 422, "invalid_request")

    def decision(**data: str) -> str:
        answer = client.post(f"{gallery}/identify", files={"image": face_jpeg}, data=data)
        return str(answer.raise_for_status().json()["faces"][0]["decision"])

    assert decision() == decision(filter="team:blue") == decision(filter='{"level": 3}') == "match"
    assert decision(filter="team:red") == "unknown"
    as_json = {
        "image": {"base64": base64.b64encode(face_jpeg).decode()},
        "filter": {"team": "red", "level": 3},
    }
    assert client.post(f"{gallery}/identify", json=as_json).json()["faces"][0]["decision"] == "unknown"
    for bad in ("team", "{", '{"team": ["blue"]}', '{"a":' * 3000):
        refused = client.post(f"{gallery}/identify", files={"image": face_jpeg}, data={"filter": bad})
        assert_problem(refused, 422, "invalid_request")
