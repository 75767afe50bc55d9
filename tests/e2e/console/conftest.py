"""Server, browser and pictures for the console's tests."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from tests.cameras import Camera, filming
from tests.e2e.console.server import ROOT, serving
from tests.toy import write_toy_model

KEY = "correct-horse"
PATIENCE_MS = 60_000  # a loaded machine takes its time
expect.set_options(timeout=PATIENCE_MS)
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)


@pytest.fixture(scope="package")
def chromium() -> str:
    """The browser's executable; skips the test where there is none."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    for name in names:
        if name and (path := shutil.which(name)):
            return path
    pytest.skip("needs Chromium: apt-get install chromium, or name one with CHROMIUM")


@pytest.fixture(scope="package")
def playwright(chromium: str) -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@dataclass(frozen=True)
class Pictures:
    """Picture files of one person and of none, by path."""

    portrait: Path
    closer: Path
    tilted: Path
    twice: Path
    coffee: Path
    broken: Path
    webcam: Path
    video: Path
    long: Path


@pytest.fixture(scope="package")
def pictures(portrait: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Made from scikit-image's public-domain portrait, so that nothing private enters a screenshot."""
    from skimage import data

    folder = tmp_path_factory.mktemp("pictures")
    whole = Image.fromarray(portrait)
    made = Pictures(
        portrait=folder / "astronaut.jpg",
        closer=folder / "Eileen_Collins_0001.jpg",
        tilted=folder / "Eileen_Collins_0002.png",
        twice=folder / "twice.jpg",
        coffee=folder / "coffee.jpg",
        broken=folder / "broken.jpg",
        webcam=folder / "webcam.y4m",
        video=folder / "pan.mp4",
        long=folder / "long.mp4",
    )
    whole.save(made.portrait, quality=92)
    whole.crop((110, 0, 350, 270)).save(made.closer, quality=92)
    whole.rotate(4, resample=Image.Resampling.BICUBIC).crop((30, 30, 480, 480)).save(made.tilted)
    double = Image.new("RGB", (960, 512), "#20252c")
    double.paste(whole, (0, 0))
    mirrored = whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT).crop((132, 0, 512, 380))
    double.paste(mirrored.resize((448, 448)), (512, 64))
    double.save(made.twice, quality=92)
    Image.fromarray(data.coffee()).save(made.coffee)
    made.broken.write_bytes(made.portrait.read_bytes()[:400])
    _write_y4m(made.webcam, portrait)
    _write_video(made.video, portrait)
    _write_video(made.long, portrait, times=12)
    return made


def _write_y4m(path: Path, portrait: NDArray[np.uint8]) -> None:
    """The portrait as an uncompressed video of 640x480, as Chromium's fake camera reads it."""
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[:, 80:560] = cv2.resize(portrait, (480, 480))
    planes = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420).tobytes()
    path.write_bytes(b"YUV4MPEG2 W640 H480 F10:1 Ip A1:1 C420jpeg\n" + (b"FRAME\n" + planes) * 3)


def _write_video(path: Path, portrait: NDArray[np.uint8], times: int = 1) -> None:
    """Three seconds, so many times: one of an empty wall, two of the portrait moving to the right."""
    picture = cv2.resize(portrait[:400], (480, 375))[:360]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 480, 360, "yuv420p"
        for n in [*range(30)] * times:
            shown = np.full_like(picture, 60) if n < 10 else np.roll(picture, 2 * n, axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="package")
def browser(playwright: Playwright, chromium: str, pictures: Pictures) -> Iterator[Browser]:
    arguments = [*ARGUMENTS, f"--use-file-for-fake-video-capture={pictures.webcam}"]
    started = playwright.chromium.launch(executable_path=chromium, args=arguments)
    yield started
    started.close()


@pytest.fixture(scope="package")
def camera(pictures: Pictures) -> Camera:
    """What stands before the network camera."""
    return Camera(pictures.closer.read_bytes())


@pytest.fixture(scope="package")
def camera_url(camera: Camera) -> Iterator[str]:
    """The address of the network camera: MJPEG over HTTP, on loopback."""
    with filming(camera) as url:
        yield url


@pytest.fixture(scope="package")
def server(chromium: str, camera_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for all tests, which asks for `KEY`; each test works in a gallery of its own."""
    environment = {
        "SPHEREID_API_KEYS": KEY,
        "SPHEREID_MONITORS__SOURCES": camera_url,
        "SPHEREID_MONITORS__WEBHOOKS": "http://127.0.0.1:9/hooks/",
    }
    if "CONSOLE_SCREENSHOTS" in os.environ and any((ROOT / "models").glob("*/manifest.json")):
        environment["SPHEREID_MODELS_DIR"] = str(ROOT / "models")
    folder = tmp_path_factory.mktemp("console")
    write_toy_model(folder / "models", "toy-at-work", license_name="CC0-1.0")
    with serving(folder, environment) as url:
        yield url


@pytest.fixture(scope="package")
def api(server: str) -> Iterator[httpx.Client]:
    """The same server without a browser, to prepare and to check; in the end nothing may have failed in it,
    also where a browser left in the middle of a request."""
    key = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server, headers=key, timeout=60, trust_env=False) as client:
        yield client
        assert 'status="5' not in client.get("/metrics").text


@pytest.fixture
def gallery(api: httpx.Client, request: pytest.FixtureRequest) -> str:
    """A fresh, empty gallery, named after the test."""
    name = request.node.name.replace("[", "-").replace("]", "").replace("_", "-")[:60]
    api.delete(f"/v1/galleries/{name}")  # of a first try
    api.post("/v1/galleries", json={"id": name, "name": name}).raise_for_status()
    return name


Opener = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, server: str) -> Iterator[Opener]:
    """`open_page(path, **context options)`: a page of a fresh context, signed in.

    In the end the test fails if the page logged an error, threw, broke its content security policy or asked
    another host. Answers 4xx that the console shows to people are no fault.
    """
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_one(path: str = "/", **options: object) -> Page:
        context = browser.new_context(
            **{
                "base_url": server,
                "viewport": {"width": 1280, "height": 860},
                "locale": "en-US",
                "timezone_id": "UTC",
                **options,
            }  # type: ignore[arg-type]
        )
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(f"sessionStorage.setItem('sphereid.key', '{KEY}')")
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(f"threw: {error}"))
        page.on(
            "console",
            lambda message: (
                message.type == "error"
                and "Failed to load resource" not in message.text
                and complaints.append(f"logged: {message.text}")
            ),
        )
        page.on(
            "request",
            lambda asked: (
                asked.url.startswith((server, "blob:", "data:"))
                or complaints.append(f"asked another host: {asked.url}")
            ),
        )
        page.goto(path)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def stranger(browser: Browser, server: str) -> Iterator[Page]:
    """A page that is neither signed in nor watched."""
    context = browser.new_context(base_url=server, viewport={"width": 1280, "height": 860})
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()
