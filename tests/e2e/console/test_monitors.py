"""Monitors in the console: a real camera on loopback is added, breaks, comes back, and is removed."""

import re

import httpx
from playwright.sync_api import expect

from tests.cameras import Camera
from tests.e2e.console.conftest import Opener, Pictures
from tests.e2e.console.test_flows import enroll


def test_a_camera_is_watched_from_the_console(
    open_page: Opener,
    api: httpx.Client,
    gallery: str,
    pictures: Pictures,
    camera: Camera,
    camera_url: str,
) -> None:
    enroll(api, gallery, "eileen", "Eileen", pictures.closer)
    page = open_page(f"/#/gallery/{gallery}/people")
    page.get_by_role("link", name="Monitors", exact=True).click()
    expect(page.get_by_text("No monitor yet")).to_be_visible()
    page.get_by_label("Source").fill("rtsp://elsewhere.lan/1")
    page.get_by_role("button", name="Watch").click()
    expect(page.get_by_role("alert")).to_contain_text("SPHEREID_MONITORS__SOURCES")

    page.get_by_label("Source").fill(camera_url)
    page.get_by_label("Name", exact=True).fill("Back door")
    page.get_by_label("Webhook").fill("http://127.0.0.1:9/hooks/door")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="The webhook's secret")
    expect(dialog.get_by_label("The webhook's secret")).to_have_value(re.compile("^whsec_.{40}"))
    dialog.get_by_role("button", name="I have kept it").click()

    expect(page.get_by_role("heading", name="Back door")).to_be_focused()
    row = page.locator("tbody tr", has_text="Eileen")
    expect(row).to_contain_text("arrived")
    expect(page.locator(".badge", has_text="running")).to_be_visible()
    (made,) = api.get("/v1/monitors").json()["items"]
    assert (made["name"], made["gallery"], made["state"]) == ("Back door", gallery, "running")

    camera.broken.set()
    expect(page.get_by_text("trying again in")).to_be_visible()
    expect(page.locator(".badge", has_text="running")).to_be_visible()

    page.get_by_role("link", name="All monitors").click()
    item = page.get_by_role("listitem").filter(has_text="Back door")
    expect(item).to_contain_text("running")
    page.get_by_role("button", name="Remove Back door").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("No monitor yet")).to_be_visible()
    assert api.get("/v1/monitors").json()["items"] == []


def test_a_page_learns_that_its_monitor_is_gone(
    open_page: Opener, api: httpx.Client, gallery: str, camera_url: str
) -> None:
    body = {"id": "gone", "source": camera_url, "gallery": gallery, "rate": 1}
    api.post("/v1/monitors", json=body).raise_for_status()
    page = open_page("/#/monitors/gone")
    expect(page.get_by_role("heading", name="gone")).to_be_visible()
    api.delete("/v1/monitors/gone").raise_for_status()
    expect(page.get_by_text("No monitor yet")).to_be_visible()
    expect(page.locator("#toasts")).to_contain_text("gone was removed")
