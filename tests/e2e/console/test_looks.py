"""Every page in both themes and on a phone: nothing that axe-core calls serious, nothing off the side.

With CONSOLE_SCREENSHOTS=docs/img the pictures in the documents are made anew, with the model of `models/`.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from tests.e2e.console.conftest import Opener, Pictures
from tests.e2e.console.test_flows import choose, enroll
from tests.server import until

LARGE = 200_000
LOOKS: dict[str, dict[str, object]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}, "has_touch": True},
}


@pytest.fixture(scope="module")
def crew(api: httpx.Client, pictures: Pictures, camera_url: str) -> Iterator[str]:
    """A gallery with a few people in it, and a monitor that looks for them."""
    api.post("/v1/galleries", json={"id": "crew", "name": "Crew", "keep_crops": True}).raise_for_status()
    enroll(api, "crew", "eileen-collins", "Eileen Collins", pictures.closer, pictures.tilted)
    for name in ("Ada Lovelace", "Grace Hopper", "Katherine Johnson", "Hedy Lamarr"):
        slug = name.lower().replace(" ", "-")
        api.post("/v1/galleries/crew/identities", json={"id": slug, "name": name}).raise_for_status()
    api.post("/v1/galleries", json={"id": "door", "name": "Door"}).raise_for_status()
    api.patch("/v1/galleries/door/unknowns", json={"keep": True}).raise_for_status()
    for picture in (pictures.portrait, pictures.tilted, pictures.twice):
        files = {"image": ("door camera", picture.read_bytes())}
        api.post("/v1/galleries/door/identify", files=files).raise_for_status()
    film = {"video": (pictures.video.name, pictures.video.read_bytes())}
    job = api.post("/v1/videos", files=film, data={"gallery": "crew"}).json()
    with api.stream("GET", f"/v1/jobs/{job['id']}/events") as events:
        assert '"succeeded"' in events.read().decode()
    door = {"id": "door", "name": "Front door", "source": camera_url, "gallery": "crew", "rate": 2}
    door["webhook"] = {"url": "http://127.0.0.1:9/hooks/door"}
    api.post("/v1/monitors", json=door).raise_for_status()
    until(lambda: api.get("/v1/monitors/door").json()["events"] > 0)
    yield "crew"
    api.delete("/v1/monitors/door").raise_for_status()


def identify(page: Page, pictures: Pictures) -> None:
    choose(page, pictures.twice)
    expect(page.locator(".face-card")).to_have_count(2)
    page.get_by_text("Candidates and quality").first.click()


def verify(page: Page, pictures: Pictures) -> None:
    choose(page, pictures.portrait, nth=0)
    choose(page, pictures.tilted, nth=1)
    expect(page.locator(".verdict-line")).to_be_visible()


def sent(page: Page, pictures: Pictures) -> None:
    choose(page, pictures.closer, pictures.tilted, pictures.coffee)
    page.get_by_role("button", name="Enroll", exact=True).click()
    expect(page.locator("#enroll-summary")).to_have_text("2 of 3 pictures enrolled, 1 not")


def camera(page: Page, pictures: Pictures) -> None:
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator(".face-box")).to_have_count(1)


def played(page: Page, pictures: Pictures) -> None:
    page.get_by_role("link", name=pictures.video.name).first.click()
    expect(page.locator(".track-span")).to_have_count(1)
    expect(page.locator("video")).to_have_js_property("readyState", 4)
    page.locator("video").evaluate("(video) => { video.currentTime = 2; }")
    expect(page.locator(".track-now")).to_be_visible()


def inbox(page: Page, pictures: Pictures) -> None:
    page.get_by_label("Gallery", exact=True).select_option("door")
    faces = page.locator(".unknown-face img")
    expect(faces.first).to_be_visible()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.unknown-face img')].every((i) => i.naturalWidth)"
    )


def watched(page: Page, pictures: Pictures) -> None:
    expect(page.get_by_role("region", name="Who comes and goes")).to_contain_text("Eileen Collins")
    expect(page.locator(".badge", has_text="running")).to_be_visible()


def shown(text: str) -> Callable[[Page, Pictures], None]:
    return lambda page, _: expect(page.locator("main").get_by_text(text).first).to_be_visible()


PAGES: dict[str, tuple[str, Callable[[Page, Pictures], None]]] = {
    "identify": ("#/identify", identify),
    "verify": ("#/verify", verify),
    "gallery": ("#/gallery/crew/people", shown("Grace Hopper")),
    "person": ("#/gallery/crew/people/eileen-collins", shown("Eileen_Collins_0001.jpg")),
    "enroll": ("#/gallery/crew/enroll", sent),
    "threshold": ("#/gallery/crew/threshold", shown("false match rate (FMR)")),
    "settings": ("#/gallery/crew/settings", shown("Name, metadata, pictures")),
    "live": ("#/live", camera),
    "monitors": ("#/monitors", shown("Front door")),
    "monitor": ("#/monitors/door", watched),
    "video": ("#/video", played),
    "jobs": ("#/jobs", shown("succeeded")),
    "system": ("#/system", shown("Decided match")),
    "unknowns": ("#/unknowns", inbox),  # the last, for it chooses another gallery
}


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_can_be_used_and_seen(
    look: str, open_page: Opener, crew: str, pictures: Pictures, tmp_path: Path
) -> None:
    target = Path(os.environ.get("CONSOLE_SCREENSHOTS", tmp_path))
    page = open_page("/healthz", reduced_motion="reduce", **LOOKS[look])
    page.evaluate("(gallery) => sessionStorage.setItem('sphereid.gallery', gallery)", crew)
    faults: list[str] = []
    for name, (address, act) in PAGES.items():
        page.goto(f"/{address}")
        act(page, pictures)
        page.mouse.move(0, 0)
        page.evaluate("() => scrollTo(0, 0)")
        _photograph(page, target / f"console-{name}-{look}.png")
        wide = page.evaluate(
            "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        if wide > 0:
            faults.append(f"{name}: {wide} pixels run off the side")
        faults += [f"{name}: {fault}" for fault in faults_of(page, look)]
    assert faults == []


@pytest.mark.parametrize("look", ["light", "dark"])
def test_dialogs_are_accessible(look: str, open_page: Opener, crew: str) -> None:
    page = open_page("/#/gallery/crew/people/eileen-collins", color_scheme=look)
    for button in ("Edit", "Merge", "Delete", "New gallery"):
        page.get_by_role("button", name=button, exact=True).click()
        assert faults_of(page, look) == []
        page.keyboard.press("Escape")


def faults_of(page: Page, look: str) -> list[str]:
    """What axe-core calls serious or critical, and contrasts that a background keeps it from judging.

    The dark theme differs from the light one in its colors only, so only they are looked at again.
    """
    options: dict[str, object] = {"resultTypes": ["violations", "incomplete"]}
    if look == "dark":
        options["runOnly"] = {"type": "rule", "values": ["color-contrast"]}
    found = Axe().run(page, options=options).response
    serious = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    unsure = [
        each
        for each in found["incomplete"]
        if re.search("gradient|background image|pseudo", json.dumps(each["nodes"]))
    ]
    return [
        f"{each['id']} ({each['help']}) at {[node['html'][:200] for node in each['nodes'][:3]]}"
        for each in serious + unsure
    ]


def _photograph(page: Page, path: Path) -> None:
    page.screenshot(path=path, animations="disabled")
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.save(path, optimize=True)
    if path.stat().st_size > LARGE:  # a photograph is on it
        small.quantize(256, kmeans=2, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
