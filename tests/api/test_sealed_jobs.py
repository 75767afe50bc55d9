"""With a key, nothing that a job keeps lies on the disk in the plain; over HTTP it comes out as ever."""

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from sphereid.settings import Settings

from tests.api.test_bulk import finished, result
from tests.photographs import people, write_zip
from tests.server import Running, serving
from tests.unit.video.clips import write_clip

KEY = "ab" * 32


@pytest.fixture
def sealed(toy_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Running]:
    with serving(toy_settings(tmp_path, encryption_key=KEY)) as running:
        yield running


def on_disk(folder: Path, *secrets: bytes) -> list[Path]:
    """Files that hold one of some bytes. A running job puts its state down beside the old one and renames it:
    what is gone when it is looked at is passed over."""
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file() and any(secret in path.read_bytes() for secret in secrets):
                found.append(path)
    return found


def job_of(running: Running, response: Any) -> dict[str, Any]:
    assert response.status_code == 202, response.text
    job = finished(running.client, response.json())
    assert job["state"] == "succeeded", job
    return job


def test_imports_and_exports(sealed: Running, portrait: NDArray[np.uint8], tmp_path: Path) -> None:
    client = sealed.client
    archive = write_zip(tmp_path / "people.zip", people(portrait, 3, 2)).read_bytes()
    stop = client.post("/v1/galleries/default/import", files={"file": ("people.zip", archive)})
    assert not on_disk(tmp_path / "data", archive[1000:1064])  # while it waits or runs
    job = job_of(sealed, stop)
    assert job["result"]["enrolled"] == 6
    report = result(client, job, "report_csv").text
    assert "p1/1.jpg" in report
    exported = job_of(sealed, client.post("/v1/galleries/default/export"))
    whole = result(client, exported, "gallery")
    assert whole.headers["content-length"] == str(len(whole.content))
    table = pq.read_table(io.BytesIO(whole.content))
    assert table.num_rows == 6
    vector = np.asarray(table["embedding"][0].values).astype("<f4").tobytes()
    files = [path.name for path in on_disk(tmp_path / "data" / "jobs", b"PAR1", vector, b"p1/1.jpg")]
    assert files == []
    evaluated = job_of(sealed, client.post("/v1/galleries/default/evaluation"))
    assert result(client, evaluated, "chart").text.startswith("<svg")
    back = client.post("/v1/galleries", json={"id": "back"}).json()["id"]
    again = client.post(f"/v1/galleries/{back}/import", files={"file": ("g.parquet", whole.content)})
    assert job_of(sealed, again)["result"]["enrolled"] == 6


def test_ranges(sealed: Running, portrait: NDArray[np.uint8], tmp_path: Path) -> None:
    client = sealed.client
    archive = write_zip(tmp_path / "people.zip", people(portrait, 2, 1)).read_bytes()
    job = job_of(sealed, client.post("/v1/galleries/default/import", files={"file": ("a.zip", archive)}))
    url = f"/v1/jobs/{job['id']}/result?artifact=report"
    whole = client.get(url).content
    size = len(whole)
    for asked, start, end in (
        ("bytes=0-9", 0, 10),
        ("bytes=5-", 5, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=3-{size + 99}", 3, size),
    ):
        part = client.get(url, headers={"Range": asked})
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.content == whole[start:end]
    assert client.get(url, headers={"Range": f"bytes={size}-"}).status_code == 416
    assert client.get(url, headers={"Range": "bytes=0-1,5-6"}).content == whole


def test_videos(sealed: Running, portrait: NDArray[np.uint8], tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [portrait] * 12)
    data = clip.read_bytes()
    answer = sealed.client.post("/v1/videos", files={"video": ("clip.mp4", data)}, data={"annotate": "true"})
    assert not on_disk(tmp_path / "data", data[200:264])
    job = job_of(sealed, answer)
    assert set(job["result"]["artifacts"]) >= {"tracks", "csv", "timeline", "vtt", "frames", "video"}
    assert result(sealed.client, job, "timeline").content.startswith(b"\x89PNG")
    video = result(sealed.client, job, "video").content
    assert video[4:8] == b"ftyp"
    tracks = result(sealed.client, job, "tracks").json()
    assert tracks["video"]["frames"] == job["result"]["frames"] > 0
    plain = on_disk(tmp_path / "data" / "jobs", b"ftyp", b"\x89PNG", b"\xff\xd8\xff", b'"frames_per_second"')
    assert plain == []
