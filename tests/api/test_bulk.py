"""Whole galleries over HTTP: jobs that import and export."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.api.conftest import assert_problem
from tests.photographs import people, photograph, write_tar, write_zip
from tests.server import until

FINAL = {"succeeded", "failed", "canceled"}


def finished(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """The job when it is over."""

    def over() -> bool:
        job.update(client.get(f"/v1/jobs/{job['id']}").json())
        return job["state"] in FINAL

    until(over)
    return job


def send(client: httpx.Client, gallery: str, file: Path | bytes, **options: str) -> dict[str, Any]:
    data = file if isinstance(file, bytes) else file.read_bytes()
    response = client.post(f"{gallery}/import", files={"file": ("people.zip", data)}, data=options)
    assert response.status_code == 202, response.text
    return finished(client, response.json())


def result(client: httpx.Client, job: dict[str, Any], artifact: str) -> httpx.Response:
    response = client.get(f"/v1/jobs/{job['id']}/result", params={"artifact": artifact})
    assert response.status_code == 200, response.text
    return response


@pytest.fixture(scope="module")
def archive(portrait: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = people(portrait, 3, 2) | {"p0/broken.jpg": b"\xff\xd8\xff broken", "p1/list.txt": b"-"}
    gray = np.full((200, 200, 3), 127, np.uint8)
    from tests.server import jpeg

    return write_zip(tmp_path_factory.mktemp("zip") / "people.zip", files | {"p2/nobody.jpg": jpeg(gray)})


def test_an_archive_of_people(client: httpx.Client, gallery: str, archive: Path) -> None:
    job = send(client, gallery, archive)
    assert job["state"] == "succeeded", job
    assert job["kind"] == "import"
    found = job["result"]
    assert (found["files"], found["enrolled"], found["present"], found["left_out"]) == (9, 6, 0, 3)
    assert found["reasons"] == {"image_broken": 1, "not_an_image": 1, "face_not_found": 1}
    report = result(client, job, "report").json()
    lines = {line["file"]: line for line in report["lines"]}
    assert lines["p0/broken.jpg"]["reason"] == "image_broken"
    assert lines["p2/nobody.jpg"]["detail"]
    assert lines["p1/1.jpg"]["identity"] == "p1"
    rows = list(csv.DictReader(io.StringIO(result(client, job, "report_csv").text)))
    assert {row["file"]: row["outcome"] for row in rows} == {f: line["outcome"] for f, line in lines.items()}
    counts = client.get(gallery).json()
    assert (counts["identities"], counts["faces"]) == (3, 6)
    # and once more: nothing is enrolled twice
    again = send(client, gallery, archive)["result"]
    assert (again["enrolled"], again["present"]) == (0, 6)
    assert client.get(gallery).json()["revision"] == counts["revision"]


def test_imported_people_are_named(
    client: httpx.Client, gallery: str, archive: Path, portrait: NDArray[np.uint8]
) -> None:
    send(client, gallery, archive)
    for person in range(3):
        files = {"image": ("probe.jpg", photograph(portrait, person, 7))}
        (face,) = client.post(f"{gallery}/identify", files=files).json()["faces"]
        assert face["identity"]["id"] == f"p{person}"


def test_a_table_in_a_tar_gives_names_and_metadata(
    client: httpx.Client, gallery: str, portrait: NDArray[np.uint8], tmp_path: Path
) -> None:
    table = 'identity,name,file,team\nalice,"Alice, A.",x/1.jpg,blue\nbob,,x/2.jpg,\ncarol,C,x/3.jpg,\n'
    files = {
        "table.csv": table.encode(),
        "x/1.jpg": photograph(portrait, 0),
        "x/2.jpg": photograph(portrait, 1),
    }
    job = send(client, gallery, write_tar(tmp_path / "a.tar.gz", files, "w:gz"))
    assert job["result"]["enrolled"] == 2
    assert job["result"]["reasons"] == {"file_missing": 1}
    alice = client.get(f"{gallery}/identities/alice").json()
    assert (alice["name"], alice["metadata"]) == ("Alice, A.", {"team": "blue"})


def test_faces_of_somebody_else_can_be_left_out(
    client: httpx.Client, gallery: str, portrait: NDArray[np.uint8], tmp_path: Path
) -> None:
    files = {"a/1.jpg": photograph(portrait, 0, 0), "b/1.jpg": photograph(portrait, 0, 1)}
    path = write_zip(tmp_path / "a.zip", files)
    job = send(client, gallery, path, duplicates="refuse")
    assert job["result"]["reasons"] == {"duplicate_face": 1}
    line = result(client, job, "report").json()["lines"][1]
    assert (line["file"], line["resembles"]) == ("b/1.jpg", "a")
    job = send(client, gallery, path)
    assert (job["result"]["enrolled"], job["result"]["resembling"]) == (1, 1)


def test_an_export_comes_back_in_another_gallery(client: httpx.Client, gallery: str, archive: Path) -> None:
    send(client, gallery, archive)
    client.post(f"{gallery}/identities", json={"id": "empty", "name": "Nobody yet"}).raise_for_status()
    job = finished(client, client.post(f"{gallery}/export").json())
    assert job["state"] == "succeeded", job
    assert (job["result"]["identities"], job["result"]["faces"]) == (4, 6)
    answer = client.get(f"/v1/jobs/{job['id']}/result")  # the only thing there is
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    assert pq.read_table(io.BytesIO(answer.content)).num_rows == 7
    other = f"{gallery}-copy"
    client.post("/v1/galleries", json={"id": other.rpartition("/")[2]}).raise_for_status()
    done = send(client, other, answer.content)["result"]
    assert (done["identities"], done["enrolled"], done["present"]) == (4, 6, 0)
    assert client.get(f"{other}/identities/empty").json()["name"] == "Nobody yet"


def test_what_cannot_be_imported_is_refused_at_once(client: httpx.Client, gallery: str) -> None:
    jobs = len(client.get("/v1/jobs", params={"limit": 500}).json()["items"])

    def post(path: str, data: bytes, **options: str) -> httpx.Response:
        return client.post(f"{path}/import", files={"file": ("x", data)}, data=options)

    assert_problem(post("/v1/galleries/none", b"PK"), 404, "gallery_not_found")
    assert_problem(post(gallery, b"no archive"), 422, "import_unreadable")
    assert_problem(post(gallery, b"PAR1 no parquet"), 422, "invalid_request")
    assert_problem(post(gallery, b"PK\x05\x06" + bytes(18), face="both"), 422, "invalid_request")
    assert_problem(client.post(f"{gallery}/import", json={}), 415, "unsupported_media_type")
    assert_problem(client.post("/v1/galleries/none/export"), 404, "gallery_not_found")
    assert len(client.get("/v1/jobs", params={"limit": 500}).json()["items"]) == jobs


def test_an_import_is_watched_and_repeated_safely(client: httpx.Client, gallery: str, archive: Path) -> None:
    headers = {"Idempotency-Key": gallery}
    answers = [
        client.post(f"{gallery}/import", files={"file": ("a.zip", archive.read_bytes())}, headers=headers)
        for _ in range(2)
    ]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    with client.stream("GET", f"/v1/jobs/{answers[0].json()['id']}/events") as events:
        shown = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: {")]
    assert shown[-1]["state"] == "succeeded"
    assert shown[-1]["progress"]["done"] == shown[-1]["progress"]["total"] == 9
    assert shown[-1]["progress"]["rate"] > 0


def test_an_empty_gallery_is_exported_too(client: httpx.Client, gallery: str) -> None:
    job = finished(client, client.post(f"{gallery}/export").json())
    assert job["result"]["faces"] == 0
    assert pq.read_table(io.BytesIO(result(client, job, "gallery").content)).num_rows == 0


def test_an_upload_beyond_the_limit(toy_settings: Callable[..., Any], tmp_path: Path) -> None:
    from sphereid.settings import Limits

    from tests.server import serving

    with serving(toy_settings(tmp_path, limits=Limits(import_bytes=2000))) as server:
        files = {"file": ("a.zip", b"PK" + bytes(3000))}
        answer = server.client.post("/v1/galleries/default/import", files=files)
        assert_problem(answer, 413, "file_too_large")


def test_a_gallery_measures_itself(client: httpx.Client, gallery: str, archive: Path) -> None:
    send(client, gallery, archive)
    job = finished(client, client.post(f"{gallery}/evaluation").json())
    assert job["state"] == "succeeded", job
    assert (job["result"]["mated_probes"], job["result"]["non_mated_probes"]) == (6, 6)
    document = result(client, job, "evaluation").json()
    assert sum(document["histograms"]["mated"]["counts"]) == 6
    assert [note["code"] for note in document["notes"]] == ["few_mated", "few_non_mated"]
    picture = result(client, job, "chart")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert picture.text.startswith("<svg")


def test_an_empty_gallery_says_why_it_cannot_be_measured(client: httpx.Client, gallery: str) -> None:
    job = finished(client, client.post(f"{gallery}/evaluation").json())
    assert (job["state"], job["error"]["code"]) == ("failed", "invalid_request")
    assert "no faces" in job["error"]["detail"]
    assert_problem(client.post("/v1/galleries/none/evaluation"), 404, "gallery_not_found")


def test_another_model_takes_over(portrait: NDArray[np.uint8], archive: Path, tmp_path: Path) -> None:
    from tests.server import serving, settings_for
    from tests.toy import write_toy_model

    for seed, name in enumerate(("one", "two")):
        write_toy_model(tmp_path / "models", name, seed=seed)
    probe = {"image": ("probe.jpg", photograph(portrait, 1, 7))}
    with serving(settings_for(tmp_path, model="one")) as server:
        client = server.client
        path = "/v1/galleries/staff"
        new = {"id": "staff", "keep_crops": True, "policy": {"type": "cosine", "value": 0.9}}
        client.post("/v1/galleries", json=new).raise_for_status()
        send(client, path, archive)
        files = {"images": ("late.jpg", photograph(portrait, 5, 0))}
        late = client.post(f"{path}/identities/late/faces", files=files, data={"create": "true"})
        assert late.status_code == 201, late.text
        missing = client.post(f"{path}/reembed", json={"model": "three"})
        assert "one, two" in assert_problem(missing, 404, "model_not_found")["detail"]  # type: ignore[operator]
        before = client.get(path).json()
        job = finished(client, client.post(f"{path}/reembed", json={"model": "two"}).json())
        assert job["state"] == "succeeded", job
        after = client.get(path).json()
        assert (after["faces"], after["contract"] != before["contract"]) == (7, True)
        assert result(client, job, "comparison").json()["new"]["rank_one"]["value"] == 1
        send(client, "/v1/galleries/default", archive)
        refused = client.post("/v1/galleries/default/reembed", json={"model": "two"})
        assert "keep_crops" in assert_problem(refused, 409, "crops_missing")["detail"]  # type: ignore[operator]
    with serving(settings_for(tmp_path, model="two")) as server:
        (face,) = server.client.post("/v1/galleries/staff/identify", files=probe).json()["faces"]
        assert face["identity"]["id"] == "p1"
