"""What operators do all day: enroll, identify, verify, set the threshold, delete."""

from base64 import b64encode
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.console.conftest import Opener, Pictures


def choose(page: Page, *files: Path, nth: int = 0) -> None:
    page.locator("main input[type=file]").nth(nth).set_input_files(files)


def to_identify(page: Page) -> None:
    """Go there and wait: a picture chosen too soon would go to the page before."""
    page.get_by_role("link", name="Identify", exact=True).click()
    expect(page.get_by_role("heading", level=1, name="Identify")).to_be_visible()


def enroll(api: httpx.Client, gallery: str, identity: str, name: str, *files: Path) -> None:
    for file in files:
        api.post(
            f"/v1/galleries/{gallery}/identities/{identity}/faces",
            files=[("images", (file.name, file.read_bytes()))],
            data={"create": "true", "name": name},
        ).raise_for_status()


def test_from_an_empty_gallery_to_a_name_and_back(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    page = open_page(f"/#/gallery/{gallery}")
    expect(page.get_by_text("Nobody is enrolled yet")).to_be_visible()

    page.locator("main").get_by_role("link", name="Enroll people").first.click()
    choose(page, pictures.closer, pictures.tilted, pictures.coffee)
    expect(page.locator("#enroll-summary")).to_have_text("3 pictures ready")
    page.get_by_role("button", name="Enroll", exact=True).click()
    expect(page.locator("#enroll-summary")).to_have_text("2 of 3 pictures enrolled, 1 not")
    coffee = page.locator(".files li", has_text="coffee.jpg")
    expect(coffee).to_contain_text("not enrolled")
    expect(coffee).to_contain_text("no face was found")
    assert api.get(f"/v1/galleries/{gallery}").json()["faces"] == 2

    to_identify(page)
    choose(page, pictures.portrait)
    card = page.locator(".face-card")
    expect(card).to_have_attribute("data-decision", "match")
    expect(card.locator(".face-name")).to_have_text("Eileen Collins")
    meter = card.get_by_role("meter")
    said = api.post(
        f"/v1/galleries/{gallery}/identify", files={"image": pictures.portrait.read_bytes()}
    ).json()["faces"][0]
    assert float(meter.get_attribute("aria-valuenow") or "") == pytest.approx(said["similarity"], abs=1e-5)
    fill, tick = card.locator(".meter-fill").first, card.locator(".meter-tick").first
    track = card.locator(".meter-track").first.bounding_box()
    assert track is not None
    assert fill.bounding_box()["width"] / track["width"] == pytest.approx(said["similarity"], abs=0.02)  # type: ignore[index]
    across = (tick.bounding_box()["x"] + 1 - track["x"]) / track["width"]  # type: ignore[index]
    assert across == pytest.approx(said["threshold"]["value"], abs=0.02)
    expect(card.locator(".why")).to_contain_text("Similar enough")

    page.get_by_role("link", name="Gallery", exact=True).click()
    page.locator(".people a").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    receipt = page.locator("#receipt")
    expect(receipt.locator("dd").nth(0)).to_have_text("1")
    expect(receipt.locator("dd").nth(1)).to_have_text("2")
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_text("Nobody is enrolled yet")).to_be_visible()
    assert api.get(f"/v1/galleries/{gallery}").json()["faces"] == 0

    to_identify(page)
    choose(page, pictures.portrait)
    expect(page.locator(".face-card")).to_have_attribute("data-decision", "unknown")
    expect(page.locator(".why")).to_have_text("Nobody is enrolled in this gallery yet.")


def test_boxes_lie_where_the_faces_are(open_page: Opener, api: httpx.Client, pictures: Pictures) -> None:
    """The overlay's rectangles, measured on the screen, against the answer's pixels."""
    page = open_page("/#/identify", viewport={"width": 800, "height": 700})
    choose(page, pictures.twice)
    expect(page.locator(".face-card")).to_have_count(2)
    found = api.post("/v1/detect", files={"image": pictures.twice.read_bytes()}).json()
    image = page.locator(".stage img").bounding_box()
    assert image is not None
    scale = image["width"] / found["image"]["width"]
    for drawn, face in zip(page.locator(".face-box rect.edge").all(), found["faces"], strict=True):
        on_screen = drawn.bounding_box()
        assert on_screen is not None
        assert on_screen["x"] - image["x"] == pytest.approx(face["box"]["x"] * scale, abs=3)
        assert on_screen["y"] - image["y"] == pytest.approx(face["box"]["y"] * scale, abs=3)
        assert on_screen["width"] == pytest.approx(face["box"]["width"] * scale, abs=5)


def test_an_unknown_face_is_named_on_the_spot(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    page = open_page(f"/#/gallery/{gallery}/people")
    to_identify(page)
    choose(page, pictures.portrait)
    card = page.locator(".face-card")
    card.get_by_text("Candidates and quality").click()
    card.get_by_role("button", name="Enroll this face").click()
    page.get_by_role("dialog").get_by_label("Name").fill("Ada Ünïcode")
    page.get_by_role("dialog").get_by_role("button", name="Enroll").click()
    expect(page.locator(".face-name")).to_have_text("Ada Ünïcode")
    people = api.get(f"/v1/galleries/{gallery}/identities").json()["items"]
    assert [(each["id"], each["name"], each["faces"]) for each in people] == [
        ("ada-unicode", "Ada Ünïcode", 1)
    ]


def test_pictures_are_pasted_and_dropped(open_page: Opener, pictures: Pictures) -> None:
    page = open_page("/#/identify")
    expect(page.locator("#drop")).to_be_visible()
    give = """([kind, base64]) => {
        const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
        const file = new File([bytes], "picture.jpg", {type: "image/jpeg"});
        const data = new DataTransfer();
        data.items.add(file);
        if (kind === "paste") window.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data}));
        else document.querySelector(".stage-wrap").dispatchEvent(
            new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    page.evaluate(give, ["paste", b64encode(pictures.portrait.read_bytes()).decode()])
    expect(page.locator(".face-card")).to_have_count(1)
    page.evaluate(give, ["drop", b64encode(pictures.twice.read_bytes()).decode()])
    expect(page.locator(".face-card")).to_have_count(2)


def test_a_picture_is_taken_with_the_camera(open_page: Opener) -> None:
    page = open_page("/#/identify")
    page.get_by_role("button", name="Take a picture").click()
    video = page.get_by_role("dialog").locator("video")
    expect(video).to_have_js_property("videoWidth", 640)
    page.get_by_role("button", name="Take the picture").click()
    expect(page.locator(".face-card")).to_have_count(1)


def test_verify_two_pictures_and_an_identity(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    enroll(api, gallery, "eileen", "Eileen", pictures.closer)
    page = open_page("/#/verify")
    choose(page, pictures.portrait, nth=0)
    choose(page, pictures.tilted, nth=1)
    expect(page.locator(".verdict-line")).to_contain_text("The same person")
    expect(page.locator(".face-box")).to_have_count(2)
    expect(page.locator(".meter-legend")).to_contain_text("threshold 0.650 (FMR 0.1 %)")

    choose(page, pictures.twice, nth=1)
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("More than one face was found")
    page.get_by_label("If a picture shows several faces").check()
    expect(page.locator(".verdict-line")).to_contain_text("The same person")

    page.get_by_label("A picture and an identity").check()
    page.get_by_label("Gallery").select_option(gallery)
    page.get_by_label("Search").fill("eil")
    page.get_by_label("Who it should be").select_option("eileen")
    expect(page.locator(".verdict-line")).to_contain_text("This is Eileen")


def test_the_threshold_decides(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    enroll(api, gallery, "eileen", "Eileen", pictures.closer)
    page = open_page(f"/#/gallery/{gallery}/threshold")
    expect(page.locator("svg.chart")).to_be_visible()
    now = api.get(f"/v1/galleries/{gallery}").json()["threshold"]["value"]
    expect(page.locator("#outlook")).to_contain_text(f"a threshold of {now:.3f}")  # computed in the browser

    page.get_by_label("a fixed similarity (cosine)").check()
    page.get_by_label("Similarity", exact=True).fill("1")
    page.get_by_role("button", name="Save the policy").click()
    expect(page.locator("#toasts")).to_contain_text("The threshold is 1.000 (fixed)")
    assert api.get(f"/v1/galleries/{gallery}").json()["policy"] == {"type": "cosine", "value": 1.0}

    to_identify(page)
    choose(page, pictures.tilted)
    expect(page.locator(".face-card")).to_have_attribute("data-decision", "unknown")
    expect(page.locator(".why")).to_contain_text("Nobody is similar enough: the nearest is Eileen at 0.")


def test_galleries_are_made_renamed_and_deleted(open_page: Opener, api: httpx.Client) -> None:
    page = open_page("/#/gallery")
    page.get_by_role("button", name="New gallery").click()
    page.get_by_role("dialog").get_by_label("Name").fill("Night Shift")
    page.get_by_role("dialog").get_by_role("button", name="Create").click()
    expect(page.get_by_label("Gallery", exact=True)).to_have_value("night-shift")
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("Name").fill("Day Shift")
    page.get_by_label("Metadata").fill('{"floor": 3}')
    page.get_by_label("Keep a picture of each enrolled face").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Gallery", exact=True)).to_contain_text("Day Shift (0 faces)")
    made = api.get("/v1/galleries/night-shift").json()
    assert (made["name"], made["metadata"], made["keep_crops"]) == ("Day Shift", {"floor": 3}, True)

    page.get_by_label("Metadata").fill("{floor")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("This is not JSON")

    page.get_by_role("button", name="Delete the gallery").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Type night-shift to confirm").fill("something")
    dialog.get_by_role("button", name="Delete everything").click()
    expect(dialog.get_by_role("alert")).to_contain_text("The id does not match")
    dialog.get_by_label("Type night-shift to confirm").fill("night-shift")
    dialog.get_by_role("button", name="Delete everything").click()
    expect(page.locator("#receipt")).to_contain_text("the gallery is gone")
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_label("Gallery", exact=True)).to_have_value("default")
    assert api.get("/v1/galleries/night-shift").status_code == 404


def test_identities_are_searched_edited_and_lose_a_face(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    for n in range(60):
        api.post(f"/v1/galleries/{gallery}/identities", json={"name": f"Person {n:02}"}).raise_for_status()
    enroll(api, gallery, "eileen", "Eileen", pictures.closer)
    page = open_page(f"/#/gallery/{gallery}/people")
    expect(page.locator(".people li")).to_have_count(50)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".people li")).to_have_count(61)
    page.get_by_label("Search").fill("EILE")
    expect(page.locator(".people li")).to_have_count(1)
    page.locator(".people a").click()

    page.get_by_role("button", name="Edit").click()
    page.get_by_role("dialog").get_by_label("Name").fill("Eileen Collins")
    page.get_by_role("dialog").get_by_label("Metadata").fill('{"color": "#ff00aa"}')
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Eileen Collins")).to_be_visible()

    choose(page, pictures.tilted, pictures.broken)
    expect(page.locator(".files li").nth(0)).to_contain_text("enrolled")
    expect(page.locator(".files li").nth(1)).to_contain_text("the file is damaged")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("button", name="Delete face Eileen_Collins_0001.jpg").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("tbody tr")).to_have_count(1)
    assert api.get(f"/v1/galleries/{gallery}/identities/eileen").json()["faces"] == 1


def test_a_folder_is_enrolled_by_its_folders(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures, tmp_path: Path
) -> None:
    for name, file in (("Ada Lovelace", pictures.closer), ("Eileen", pictures.tilted)):
        (tmp_path / "people" / name).mkdir(parents=True)
        (tmp_path / "people" / name / file.name).write_bytes(file.read_bytes())
    (tmp_path / "people" / "notes.txt").write_text("no picture")
    page = open_page(f"/#/gallery/{gallery}/enroll")
    page.locator("main input[webkitdirectory]").set_input_files(tmp_path / "people")
    expect(page.locator("#enroll-summary")).to_have_text("2 pictures ready")
    page.get_by_role("button", name="Enroll", exact=True).click()
    expect(page.locator("#enroll-summary")).to_have_text("2 of 2 pictures enrolled")
    people = api.get(f"/v1/galleries/{gallery}/identities").json()["items"]
    assert {(each["id"], each["name"], each["faces"]) for each in people} == {
        ("ada-lovelace", "Ada Lovelace", 1),
        ("eileen", "Eileen", 1),
    }


def test_a_folder_is_dropped(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures, tmp_path: Path
) -> None:
    (tmp_path / "people" / "Ada Lovelace").mkdir(parents=True)
    (tmp_path / "people" / "Ada Lovelace" / "1.jpg").write_bytes(pictures.closer.read_bytes())
    page = open_page(f"/#/gallery/{gallery}/enroll")
    target = page.locator(".drop").bounding_box()
    assert target is not None
    browser = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(tmp_path / "people")], "dragOperationsMask": 1}
        spot = {"x": target["x"] + 40, "y": target["y"] + 40}
        browser.send("Input.dispatchDragEvent", {"type": kind, "data": data, **spot})
    expect(page.locator("#enroll-summary")).to_have_text("1 picture ready")
    page.get_by_role("button", name="Enroll", exact=True).click()
    expect(page.locator("#enroll-summary")).to_have_text("1 of 1 picture enrolled")
    (known,) = api.get(f"/v1/galleries/{gallery}/identities").json()["items"]
    assert (known["id"], known["name"], known["faces"]) == ("ada-lovelace", "Ada Lovelace", 1)


def test_kept_pictures_are_shown(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    enroll(api, gallery, "early", "Early", pictures.closer)  # before the gallery keeps any
    api.patch(f"/v1/galleries/{gallery}", json={"keep_crops": True}).raise_for_status()
    enroll(api, gallery, "eileen", "Eileen Collins", pictures.tilted)
    page = open_page(f"/#/gallery/{gallery}/people")
    there = "(image) => image.naturalWidth > 50"
    portrait = page.locator(".people li", has_text="Eileen Collins").locator("img")
    page.wait_for_function(there, arg=portrait.element_handle())
    expect(page.locator(".people li", has_text="Early").locator(".avatar")).to_have_text("E")
    page.locator(".people a", has_text="Eileen Collins").click()
    face = page.get_by_role("img", name="Face Eileen_Collins_0002.png")
    page.wait_for_function(there, arg=face.element_handle())


def test_the_system_page_tells_what_runs(open_page: Opener, api: httpx.Client) -> None:
    model = api.get("/v1/models").json()["models"][0]
    page = open_page("/#/system")
    expect(page.get_by_role("region", name="Model", exact=True)).to_contain_text(model["contract"])
    licenses = page.get_by_role("region", name="Models and licenses")
    expect(licenses.get_by_role("row", name="toy MIT")).to_be_visible()
    expect(licenses.get_by_role("row", name="toy-at-work CC0-1.0")).to_be_visible()
    expect(page.locator(".counts")).to_contain_text("ready")
    expect(
        page.get_by_role("region", name="Calibration", exact=True).locator("polyline.curve")
    ).to_be_visible()
    expect(page.get_by_role("region", name="Traffic", exact=True)).to_contain_text("/v1/models")
    page.get_by_text("not the default").click()
    settings = page.get_by_role("region", name="Settings", exact=True)
    expect(settings.get_by_role("row", name="SPHEREID_API_KEYS")).to_contain_text("set")
    expect(settings).not_to_contain_text("correct-horse")
