"""Cameras on the network: a generated MJPEG stream on loopback, watched, broken and watched again."""

import http.server
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sphereid.video import capture
from sphereid.video.capture import frames
from sphereid.video.errors import VideoError

from tests.cameras import served
from tests.e2e.test_video import film, sphereid
from tests.rtsp import rtsp_camera
from tests.server import jpeg
from tests.toy import write_toy_model
from tests.unit.video.clips import write_clip

Pixels = NDArray[np.uint8]


@contextmanager
def mjpeg(pictures: Sequence[bytes]) -> Iterator[str]:
    """A camera that breaks the connection after each showing of the pictures."""

    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for picture in pictures:
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")

        def log_message(self, *_: object) -> None:
            pass

    with served(Camera) as url:
        yield f"{url}/camera"


def test_a_camera_that_breaks_is_connected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "FIRST_WAIT", 0.01)
    pictures = [jpeg(np.full((64, 80, 3), 20 * i, np.uint8)) for i in range(8)]
    notes: list[str] = []
    stopped = threading.Event()
    with mjpeg(pictures) as url:
        source = url.replace("http://", "http://user:secret@")
        seen = []
        for time, image in frames(source, stopped, notes.append, timeout=20):
            assert image.shape == (64, 80, 3)
            seen.append(time)
            if "connected again" in notes:
                stopped.set()
    assert seen == sorted(seen)
    assert any("trying again" in line for line in notes)
    assert not any("secret" in line for line in notes)


def test_an_rtsp_camera_is_watched_and_connected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "FIRST_WAIT", 0.01)
    shades = [np.full((96, 128, 3), shade, np.uint8) for shade in (40, 200)]
    notes: list[str] = []
    stopped = threading.Event()
    seen = set()
    with rtsp_camera(shades, showings=20) as url:
        for _, image in frames(url, stopped, notes.append, timeout=20):
            assert image.shape == (96, 128, 3)
            seen.add(round(float(image.mean()), -1))
            if len(seen) == 2 and "connected again" in notes:
                stopped.set()
    assert seen == {40.0, 200.0}


def test_nothing_that_can_be_watched_is_one_clear_error() -> None:
    with pytest.raises(VideoError, match="no camera number"):
        list(frames("nothing", threading.Event(), print))


def test_watching_a_file_tells_who_came_and_went(portrait: Pixels, tmp_path: Path) -> None:
    write_toy_model(tmp_path / "models")
    write_clip(tmp_path / "in.mp4", film(portrait, 40), rate=10)
    (tmp_path / "eileen.jpg").write_bytes(jpeg(film(portrait)[5]))
    assert sphereid(tmp_path, "enroll", "eileen", "eileen.jpg", "--name", "Eileen").returncode == 0
    done = sphereid(tmp_path, "watch", "in.mp4", "--json", "--no-strangers")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(e["event"], e["identity"]["id"]) for e in events] == [("arrived", "eileen"), ("left", "eileen")]
    assert events[0]["time"] < 1.0
    assert events[1]["time"] == pytest.approx(2.9, abs=0.4)
