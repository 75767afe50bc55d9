"""Videos over real HTTP: uploaded, analyzed, watched, fetched, canceled, deleted, resumed after a kill."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.e2e.process import environment
from tests.server import Running, jpeg, serving, settings_for, until
from tests.toy import write_toy_model
from tests.unit.video.clips import write_clip

Pixels = NDArray[np.uint8]


def film(portrait: Pixels, count: int = 40) -> list[Pixels]:
    """The portrait wanders over a quiet background; in the last quarter nobody is there."""
    face = cv2.resize(portrait[0:256, 96:352], (150, 150), interpolation=cv2.INTER_AREA)
    frames = []
    for index in range(count):
        frame = np.full((240, 320, 3), 60, np.uint8)
        if index < 3 * count // 4:
            x = 20 + 3 * index
            frame[40:190, x : x + 150] = face
        frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("video")
    write_toy_model(folder / "models")
    with serving(settings_for(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def clip(portrait: Pixels, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, film(portrait), rate=20, sound="aac").read_bytes()


@pytest.fixture(scope="module")
def gallery(server: Running, portrait: Pixels) -> str:
    """A gallery that knows the portrait as it looks in the film."""
    body = {"id": "cast", "policy": {"type": "cosine", "value": 0.8}}
    server.client.post("/v1/galleries", json=body).raise_for_status()
    person = {"id": "eileen", "name": "Eileen Ö", "metadata": {"color": "#12AB34"}}
    server.client.post("/v1/galleries/cast/identities", json=person).raise_for_status()
    image = jpeg(film(portrait)[5])
    url = "/v1/galleries/cast/identities/eileen/faces"
    server.client.post(url, files={"images": ("a.jpg", image, "image/jpeg")}).raise_for_status()
    return "cast"


def post(client: httpx.Client, clip: bytes, **fields: Any) -> httpx.Response:
    files = {"video": ("my clip.mp4", clip, "video/mp4")}
    return client.post("/v1/videos", files=files, data={key: str(value) for key, value in fields.items()})


def watch(client: httpx.Client, job: str) -> list[dict[str, Any]]:
    """The job at each event, to its end."""
    with client.stream("GET", f"/v1/jobs/{job}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]


@pytest.mark.parametrize("mode", ["tracks", "per_frame"])
def test_a_video_from_upload_to_every_result(server: Running, clip: bytes, gallery: str, mode: str) -> None:
    client = server.client
    answer = post(client, clip, gallery=gallery, mode=mode, every_n=2)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["kind"], job["name"], job["state"]) == ("video", "my clip.mp4", "queued")
    seen = watch(client, job["id"])
    last = seen[-1]
    assert last["state"] == "succeeded", last
    assert last["progress"]["done"] == last["progress"]["total"] == 40
    assert last["result"]["frames"] == 40
    assert [p["id"] for p in last["result"]["people"]] == ["eileen"]

    def fetch(artifact: str, **more: str) -> httpx.Response:
        response = client.get(f"/v1/jobs/{job['id']}/result", params={"artifact": artifact, **more})
        response.raise_for_status()
        return response

    tracks = fetch("tracks").json()
    assert tracks["mode"] == mode
    assert tracks["every_n"] == 2
    assert tracks["people"][0]["color"] == "#12ab34"
    named = [row for row in tracks["tracks"] if row["identity"] == "eileen"]
    assert sum(row["to"] - row["from"] for row in named) == pytest.approx(1.5, abs=0.2)
    assert all(row["mean_similarity"] >= 0.8 for row in named)
    table = list(csv.DictReader(io.StringIO(fetch("csv").text)))
    assert [row["name"] for row in table] == [row["name"] or "" for row in tracks["tracks"]]
    captions = fetch("vtt")
    assert captions.headers["content-type"].startswith("text/vtt")
    assert "Eileen Ö" in captions.text
    assert cv2.imdecode(np.frombuffer(fetch("timeline").content, np.uint8), cv2.IMREAD_COLOR).shape[1] == 1200
    crop = fetch("crop", crop=named[0]["best_crop"]).content
    assert cv2.imdecode(np.frombuffer(crop, np.uint8), cv2.IMREAD_COLOR) is not None
    assert len(fetch("frames").text.splitlines()) == 40
    with av.open(io.BytesIO(fetch("video").content)) as video:
        assert {s.type for s in video.streams} == {"video", "audio"}
        frames = [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
    assert len(frames) == 40
    green = [int(((f[..., 1].astype(int) - f[..., 0]) > 90).sum()) for f in frames]
    assert min(green[4:26]) > 100  # the box and the name in the identity's color
    assert max(green[33:]) == 0
    part = client.get(
        f"/v1/jobs/{job['id']}/result", params={"artifact": "video"}, headers={"Range": "bytes=0-99"}
    )
    assert (part.status_code, len(part.content)) == (206, 100)

    folder = server.parts.settings.data_dir / "jobs" / job["id"]
    assert not (folder / "upload").exists()
    assert job["id"] in [each["id"] for each in client.get("/v1/jobs").json()["items"]]
    assert client.delete(f"/v1/jobs/{job['id']}").json() == {"id": job["id"], "deleted": True}
    assert not folder.exists()
    assert client.get(f"/v1/jobs/{job['id']}").status_code == 404
    assert client.get(f"/v1/jobs/{job['id']}/result").json()["code"] == "job_not_found"


@pytest.mark.parametrize("mode", ["tracks", "per_frame"])
def test_whoever_stays_unknown_reaches_the_inbox_once_and_is_named(
    server: Running, clip: bytes, mode: str
) -> None:
    client, name = server.client, f"inbox-{mode.replace('_', '-')}"
    policy = {"type": "cosine", "value": 0.8}
    client.post("/v1/galleries", json={"id": name, "policy": policy}).raise_for_status()
    inbox = f"/v1/galleries/{name}/unknowns"

    def analyze() -> dict[str, Any]:
        job = watch(client, post(client, clip, gallery=name, mode=mode, every_n=2).json()["id"])[-1]
        assert job["state"] == "succeeded", job
        left = server.parts.jobs.folder(job["id"]) / "results"
        assert not list(left.glob("*.part"))
        result: dict[str, Any] = job["result"]
        return result

    assert analyze()["unknowns"] == 0  # the gallery does not allow it
    client.patch(inbox, json={"keep": True}).raise_for_status()
    assert analyze()["unknowns"] == 1
    (person,) = client.get(inbox).json()["clusters"]
    (face,) = person["faces"]
    assert face["source"] == "my clip.mp4"
    picture = client.get(f"{inbox}/{face['id']}/picture").content
    assert min(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape[:2]) > 60
    assert analyze()["unknowns"] == 0  # it is there already
    client.post(f"{inbox}/name", json={"faces": [face["id"]], "identity": "eileen"}).raise_for_status()
    result = analyze()
    assert ([p["id"] for p in result["people"]], result["unknowns"]) == (["eileen"], 0)
    assert client.get(inbox).json()["faces"] == 0


def test_a_repeated_upload_with_a_key_makes_one_job(server: Running, clip: bytes, gallery: str) -> None:
    headers = {"Idempotency-Key": "video-once"}
    files = {"video": ("a.mp4", clip, "video/mp4")}
    fields = {"gallery": gallery, "annotate": "false"}
    first = server.client.post("/v1/videos", files=files, data=fields, headers=headers)
    again = server.client.post("/v1/videos", files=files, data=fields, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    last = watch(server.client, first.json()["id"])[-1]
    assert "video" not in last["result"]["artifacts"]
    missing = server.client.get(f"/v1/jobs/{last['id']}/result", params={"artifact": "video"})
    assert (missing.status_code, missing.json()["code"]) == (404, "artifact_not_found")
    folders = [p.name for p in (server.parts.settings.data_dir / "jobs").iterdir()]
    assert folders.count(last["id"]) == 1


@pytest.mark.parametrize(
    ("content", "fields", "status", "code"),
    [
        (b"", {}, 422, "video_empty"),
        (b"no video at all" * 99, {}, 422, "video_unreadable"),
        (None, {"gallery": "nobody"}, 404, "gallery_not_found"),
        (None, {"mode": "psychic"}, 422, "invalid_request"),
        (None, {"every_n": "0"}, 422, "invalid_request"),
        (None, {"speed": "11"}, 422, "invalid_request"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once_and_leaves_nothing(
    server: Running, clip: bytes, content: bytes | None, fields: dict[str, str], status: int, code: str
) -> None:
    jobs = server.parts.settings.data_dir / "jobs"
    before = set(jobs.iterdir())
    answer = post(server.client, clip if content is None else content, **fields)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert set(jobs.iterdir()) == before


def test_bodies_that_are_no_upload(server: Running, clip: bytes) -> None:
    client = server.client
    assert client.post("/v1/videos", json={"a": 1}).json()["code"] == "unsupported_media_type"
    assert client.post("/v1/videos", data={"video": "text"}, files={"x": ("", b"")}).status_code == 422
    head = {"Content-Type": "multipart/form-data; boundary=x"}
    broken = b'--x\r\nContent-Disposition: form-data; name="video"; filename="a"\r\n\r\n' + clip[:500]
    assert client.post("/v1/videos", content=broken, headers=head).json()["code"] == "malformed_request"
    assert client.post("/v1/videos", content=b"", headers=head).json()["code"] == "malformed_request"


def test_a_video_over_the_limit_is_refused(portrait: Pixels, clip: bytes, tmp_path: Path) -> None:
    write_toy_model(tmp_path / "models")
    with serving(settings_for(tmp_path, limits={"video_bytes": 2000})) as small:
        answer = post(small.client, clip)
        assert answer.status_code == 413
        assert not list((small.parts.settings.data_dir / "jobs").iterdir())


def test_cancel_then_delete(server: Running, portrait: Pixels, gallery: str, tmp_path: Path) -> None:
    client = server.client
    long = write_clip(tmp_path / "long.mp4", film(portrait, 40) * 10, rate=20).read_bytes()
    job = post(client, long, gallery=gallery, mode="per_frame").json()["id"]
    until(lambda: (client.get(f"/v1/jobs/{job}").json()["progress"] or {"done": 0})["done"] > 0)
    early = client.get(f"/v1/jobs/{job}/result")
    assert (early.status_code, early.json()["code"]) == (409, "job_not_finished")
    assert client.delete(f"/v1/jobs/{job}").json() == {"id": job, "deleted": False}
    last = watch(client, job)[-1]
    assert last["state"] == "canceled"
    folder = server.parts.settings.data_dir / "jobs" / job
    assert [path.name for path in folder.iterdir()] == ["job.json"]
    assert client.delete(f"/v1/jobs/{job}").json() == {"id": job, "deleted": True}
    assert not folder.exists()


def test_a_job_goes_on_after_the_service_stopped(portrait: Pixels, tmp_path: Path) -> None:
    write_toy_model(tmp_path / "models")
    long = write_clip(tmp_path / "long.mp4", film(portrait, 40) * 5, rate=20).read_bytes()
    with serving(settings_for(tmp_path)) as first:
        job = post(first.client, long, mode="per_frame", annotate=False).json()["id"]
        until(lambda: (first.client.get(f"/v1/jobs/{job}").json()["progress"] or {"done": 0})["done"] > 20)
    with serving(settings_for(tmp_path)) as second:
        assert second.client.get(f"/v1/jobs/{job}").json()["state"] in ("queued", "running", "succeeded")
        seen = watch(second.client, job)
        assert seen[-1]["state"] == "succeeded", seen[-1]
        assert seen[-1]["result"]["frames"] == 200
        moved = [s["progress"]["done"] for s in seen if s["progress"] and s["progress"]["stage"] == "analyze"]
        assert moved[0] > 20  # it did not begin anew


def sphereid(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sphereid", *arguments],
        cwd=folder,
        env=environment(folder / "data", folder / "models"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_command_line_names_a_video(portrait: Pixels, clip: bytes, tmp_path: Path) -> None:
    write_toy_model(tmp_path / "models")
    (tmp_path / "in.mp4").write_bytes(clip)
    (tmp_path / "eileen.jpg").write_bytes(jpeg(film(portrait)[5]))
    enrolled = sphereid(tmp_path, "enroll", "eileen", "eileen.jpg", "--name", "Eileen")
    assert enrolled.returncode == 0, enrolled.stderr
    done = sphereid(tmp_path, "video", "in.mp4", "--out", "out.mp4")
    assert done.returncode == 0, done.stderr
    assert "Eileen" in done.stdout
    assert "40 frames" in done.stderr
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert {s.type for s in video.streams} == {"video", "audio"}
    names = {path.name for path in (tmp_path / "in.results").iterdir()}
    assert names == {"tracks.json", "tracks.csv", "timeline.png", "captions.vtt", "frames.jsonl", "crops"}
    as_json = sphereid(tmp_path, "video", "in.mp4", "--results", "again", "--mode", "per_frame", "--json")
    assert [p["id"] for p in json.loads(as_json.stdout)["people"]] == ["eileen"]
    (tmp_path / "empty.mp4").write_bytes(b"")
    for arguments, words in (
        (("video", "nothing.mp4"), "there is no file nothing.mp4"),
        (("video", "in.mp4", "--out", "in.mp4"), "is the video itself"),
        (("video", "in.mp4", "--out", "out.avi"), "ends with .mp4"),
        (("video", "in.mp4", "--gallery", "nobody"), "nobody"),
        (("video", "empty.mp4"), "no bytes"),
    ):
        failed = sphereid(tmp_path, *arguments)
        assert failed.returncode == 2, failed.stderr
        assert words in failed.stderr
        assert "Traceback" not in failed.stderr
    assert not (tmp_path / "empty.results").exists()
