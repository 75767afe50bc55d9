"""The shared photographs, enrolled from their folders; the console must say what the API says."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.e2e.console.conftest import Opener
from tests.e2e.console.test_flows import choose, to_identify


@pytest.mark.data
def test_a_folder_of_people_and_a_picture_of_two(
    open_page: Opener, api: httpx.Client, gallery: str, shared_data: Path
) -> None:
    demo = shared_data / "demo" / "knn_examples"
    page = open_page(f"/#/gallery/{gallery}/enroll")
    page.locator("main input[webkitdirectory]").set_input_files(demo / "train")
    page.get_by_label("Where several faces are on a picture").check()
    page.get_by_role("button", name="Enroll", exact=True).click()
    expect(page.locator("#enroll-summary")).to_have_text("9 of 9 pictures enrolled", timeout=90_000)
    people = api.get(f"/v1/galleries/{gallery}/identities").json()["items"]
    assert {each["name"] for each in people} == {folder.name for folder in (demo / "train").iterdir()}

    picture = demo / "test" / "obama_and_biden.jpg"
    said = api.post(f"/v1/galleries/{gallery}/identify", files={"image": picture.read_bytes()}).json()
    to_identify(page)
    choose(page, picture)
    cards = page.locator(".face-card")
    expect(cards).to_have_count(len(said["faces"]))
    for card, face in zip(cards.all(), said["faces"], strict=True):
        expect(card).to_have_attribute("data-decision", face["decision"])
        if face["decision"] == "match":
            expect(card.locator(".face-name")).to_have_text(face["identity"]["name"])
        expect(card.get_by_role("meter")).to_have_attribute("aria-valuemax", "1")
