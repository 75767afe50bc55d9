"""What monitors may open and call: what the settings name and nothing that only looks like it."""

from pathlib import Path

import pytest
from sphereid.monitors.allowed import Allowed, shown
from sphereid.monitors.errors import MonitorError

ALLOWED = Allowed(
    ("rtsp://cam.lan/", "http://10.0.0.5:8080/feeds", "0"),
    ("https://example.org/hooks", "http://[::1]:9000/"),
)


@pytest.mark.parametrize(
    "source",
    [
        "rtsp://cam.lan/1",
        "rtsp://cam.lan:554/1?x=1",
        "rtsp://me:pass@cam.lan/1",
        "http://10.0.0.5:8080/feeds",
        "0",
        "http://10.0.0.5:8080/feeds/a/b",
        "RTSP://CAM.LAN/x",
    ],
)
def test_sources_that_are_named(source: str) -> None:
    ALLOWED.check_source(source)


@pytest.mark.parametrize(
    "source",
    ["", "1", "00", "rtsp://cam.lan.evil/1", "rtsp://cam.lan@evil/1", "rtsp://evil/?rtsp://cam.lan/",
     "rtsp://cam.lan:555/1", "rtsps://cam.lan/1", "http://cam.lan/1", "http://10.0.0.5/feeds", "file:///etc/passwd",
     "http://10.0.0.5:8080/feedsx", "http://10.0.0.5:8080/feeds/../admin", "http://10.0.0.5:8080/feeds/%2e%2e/admin",
     "http://10.0.0.5:8080/feeds/..%5cadmin", "http://10.0.0.5:8080\\@evil/feeds", "http://10.0.0.5:8080/",
     "http://[",
     "concat:http://10.0.0.5:8080/feeds", "http://10.0.0.5:99999/feeds", "rtsp://cam.lan/\n",
     "/etc/passwd", "."],
)  # fmt: skip
def test_sources_that_are_not(source: str) -> None:
    with pytest.raises(MonitorError) as caught:
        ALLOWED.check_source(source)
    assert caught.value.code == "source_not_allowed"


def test_webhooks() -> None:
    ALLOWED.check_webhook("https://example.org/hooks/1")
    ALLOWED.check_webhook("http://[::1]:9000/x")
    for url in (
        "http://example.org/hooks/1",
        "https://example.org/",
        "rtsp://cam.lan/",
        "http://[::1]/x",
        "0",
    ):
        with pytest.raises(MonitorError):
            ALLOWED.check_webhook(url)


def test_nothing_is_allowed_by_default() -> None:
    for source in ("0", "rtsp://cam.lan/", "/", "."):
        with pytest.raises(MonitorError):
            Allowed().check_source(source)


def test_files_only_within_the_folder_that_is_named(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.mp4").write_bytes(b"")
    (inside / "link.mp4").symlink_to(outside / "a.mp4")
    allowed = Allowed((str(inside),))
    allowed.check_source(str(inside / "a.mp4"))
    for bad in (outside / "a.mp4", inside / ".." / "out" / "a.mp4", inside / "link.mp4", inside / "none.mp4"):
        with pytest.raises(MonitorError):
            allowed.check_source(str(bad))


def test_what_is_shown_holds_no_secret() -> None:
    assert shown("rtsp://me:pass@cam.lan:554/1?token=x") == "rtsp://…@cam.lan:554/1?…"
    assert shown("http://cam.lan/1") == "http://cam.lan/1"
    assert shown("0") == "0"
