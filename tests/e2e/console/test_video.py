"""Video, jobs and the webcam: upload, progress, player with timeline, downloads, cancel and delete."""

import json
from base64 import urlsafe_b64encode
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.e2e.console.conftest import KEY, Opener, Pictures
from tests.e2e.console.test_flows import choose, enroll

LONG_MS = 90_000


def test_from_a_file_to_a_named_video(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures, tmp_path: Path
) -> None:
    enroll(api, gallery, "eileen", "Eileen", pictures.closer, pictures.tilted)
    page = open_page(f"/#/gallery/{gallery}/people")
    page.get_by_role("link", name="Video", exact=True).click()
    expect(page.get_by_label("Gallery", exact=True)).to_have_value(gallery)
    choose(page, pictures.video)

    lane = page.locator(".track", has_text="Eileen")
    expect(lane.locator(".track-span")).to_have_count(1, timeout=LONG_MS)
    job = page.url.rsplit("/", 1)[-1]
    tracks = api.get(f"/v1/jobs/{job}/result").json()["tracks"]
    assert [track["identity"] for track in tracks] == ["eileen"]
    start = tracks[0]["from"]
    assert 0.7 <= start <= 1.3  # the wall ends after one second

    video = page.locator("video")
    expect(video).to_have_js_property("readyState", 4)
    video.evaluate("(video) => { video.muted = true; }")
    lane.locator(".track-span").click()
    expect(video).to_have_js_property("paused", False)
    assert video.evaluate("(video) => video.currentTime") >= start
    video.evaluate("(video) => { video.pause(); video.currentTime = 0; }")
    lane.get_by_role("button", name="Eileen", exact=True).click()
    expect(video).to_have_js_property("paused", False)
    assert video.evaluate("(video) => video.currentTime") >= start
    expect(lane.locator(".track-now")).to_be_visible()

    with page.expect_download() as download:
        page.get_by_role("button", name="Tracks (JSON)").click()
    saved = tmp_path / "tracks.json"
    download.value.save_as(saved)
    assert json.loads(saved.read_text())["tracks"] == tracks
    assert download.value.suggested_filename == "pan.tracks.json"

    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Analyzed videos")).to_be_visible()
    assert api.get(f"/v1/jobs/{job}").status_code == 404


def test_from_an_empty_gallery_to_a_named_video(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    page = open_page(f"/#/gallery/{gallery}/people")
    page.get_by_role("link", name="Video", exact=True).click()
    page.get_by_role("link", name="unknown faces").click()
    page.get_by_label("Keep unknown faces of this gallery").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The inbox is empty")).to_be_visible()

    page.get_by_role("link", name="Video", exact=True).click()
    choose(page, pictures.video)
    expect(page.get_by_text("1 unknown face went into the inbox")).to_be_visible(timeout=LONG_MS)
    expect(page.locator(".track", has_text="Unknown").locator(".track-span")).to_have_count(1)
    page.locator("main").get_by_role("link", name="Unknowns").click()
    person = page.get_by_role("listitem", name="Unknown person 1")
    expect(person).to_contain_text(f"from {pictures.video.name}")
    person.get_by_label("Name of Unknown person 1").fill("Eileen")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The inbox is empty")).to_be_visible()

    page.get_by_role("link", name="Video", exact=True).click()
    expect(page.get_by_text("Nobody is enrolled")).to_have_count(0)
    choose(page, pictures.video)
    lane = page.locator(".track", has_text="Eileen")
    expect(lane.locator(".track-span")).to_have_count(1, timeout=LONG_MS)
    (known,) = api.get(f"/v1/galleries/{gallery}/identities").json()["items"]
    assert (known["id"], known["faces"]) == ("eileen", 1)


def test_a_job_is_watched_and_canceled(open_page: Opener, api: httpx.Client, pictures: Pictures) -> None:
    slow = {"mode": "per_frame", "min_face": "12"}
    with pictures.long.open("rb") as file:  # far longer than anybody needs to press a button
        job = api.post("/v1/videos", files={"video": ("slow.mp4", file)}, data=slow).json()
    page = open_page("/#/jobs")
    row = page.locator(".files li", has_text="slow.mp4")
    row.get_by_role("button", name="Cancel slow.mp4").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(row).to_contain_text("canceled")
    assert api.get(f"/v1/jobs/{job['id']}").json()["state"] == "canceled"
    row.get_by_role("button", name="Delete slow.mp4").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)


def test_jobs_of_every_kind_are_shown(open_page: Opener) -> None:
    """Also of kinds that this console does not know: the answer is made up, the page is real."""
    base = {"params": {}, "created_at": "2026-01-01T00:00:00Z", "started_at": None, "finished_at": None}
    base |= {"attempts": 1, "error": None, "progress": None, "result": {}}
    now = {"stage": "re_embed", "done": 3, "total": 9, "rate": 1.5, "eta_seconds": 4.0}
    jobs = [
        base | {"id": "a" * 16, "kind": "import", "name": "people.zip", "state": "succeeded"},
        base | {"id": "b" * 16, "kind": "new_kind", "name": "staff", "state": "running", "progress": now},
    ]
    jobs[0]["result"] = {"artifacts": ["report", "some_thing"], "faces": 1200, "identities": 7}
    page = open_page("/healthz")
    page.route("**/v1/jobs", lambda route: route.fulfill(json={"items": jobs}))
    page.route("**/v1/jobs/*/result*", lambda route: route.fulfill(body="{}"))
    page.goto("/#/jobs")
    rows = page.locator(".files > li")
    expect(rows.nth(0)).to_contain_text("faces 1,200 · identities 7")
    expect(rows.nth(1)).to_contain_text("new kind")
    expect(rows.nth(1)).to_contain_text("Re embed · 3 of 9 · 1.5 a second")
    expect(rows.nth(0).get_by_role("button")).to_have_count(3)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save Report (JSON) of people.zip").click()
    assert download.value.suggested_filename == "people.report.json"


def test_a_file_that_is_no_video_is_said_to_be_none(open_page: Opener, pictures: Pictures) -> None:
    page = open_page("/#/video")
    page.locator("main input[type=file]").set_input_files(
        {"name": "notes.mp4", "mimeType": "video/mp4", "buffer": b"no video at all" * 100}
    )
    alert = page.get_by_role("alert")
    expect(alert).to_be_visible()
    expect(alert).to_contain_text("Request")
    expect(page.locator("progress")).to_have_count(0)


def test_the_webcam_is_named_live(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    enroll(api, gallery, "eileen", "Eileen", pictures.closer)
    page = open_page(f"/#/gallery/{gallery}/people")
    page.get_by_role("link", name="Live", exact=True).click()
    page.get_by_role("button", name="Start the camera").click()
    box = page.locator(".face-box")
    expect(box).to_have_attribute("data-decision", "match")
    expect(page.locator("tbody tr", has_text="Eileen")).to_have_count(1)
    expect(page.locator("#live-facts")).to_contain_text("followed along tracks")  # over the WebSocket
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("The camera is off")).to_be_visible()
    expect(box).to_have_count(0)


def test_without_a_stream_the_webcam_is_asked_about_picture_by_picture(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    enroll(api, gallery, "eileen", "Eileen", pictures.closer)
    page = open_page(f"/#/gallery/{gallery}/people")
    page.route_web_socket("**/stream", lambda socket: socket.close(code=1013, reason="no place"))
    page.get_by_role("link", name="Live", exact=True).click()
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator("#live-facts")).to_contain_text("picture by picture")
    expect(page.locator(".face-box")).to_have_attribute("data-decision", "match")


def test_a_stream_takes_the_key_as_a_subprotocol(server: str) -> None:
    address = server.replace("http://", "ws://") + "/v1/galleries/default/stream"

    def offer(key: str) -> list[Subprotocol]:
        encoded = urlsafe_b64encode(key.encode()).decode().rstrip("=")
        return [Subprotocol("sphereid"), Subprotocol(f"sphereid.key.{encoded}")]

    with connect(address, subprotocols=offer(KEY), open_timeout=60) as stream:
        assert stream.subprotocol == "sphereid"
    for wrong in ([Subprotocol("sphereid")], offer("wrong-horse"), [Subprotocol("sphereid.key.%%%")]):
        with pytest.raises(InvalidStatus, match="403"):
            connect(address, subprotocols=wrong, open_timeout=60)
