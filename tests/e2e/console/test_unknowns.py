"""The inbox of unknown faces, and two identities that turn out to be one person."""

import httpx
from playwright.sync_api import expect

from tests.e2e.console.conftest import Opener, Pictures
from tests.e2e.console.test_flows import enroll


def identify(api: httpx.Client, gallery: str, pictures: Pictures) -> None:
    for picture in (pictures.portrait, pictures.twice):  # the second holds a mirrored face too
        files = {"image": (picture.name, picture.read_bytes())}
        api.post(f"/v1/galleries/{gallery}/identify", files=files).raise_for_status()


def test_an_unknown_person_is_named_and_another_discarded(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    page = open_page(f"/#/gallery/{gallery}/people")
    page.get_by_role("link", name="Unknowns", exact=True).click()
    expect(page.get_by_text("This gallery keeps no unknown faces")).to_be_visible()
    page.get_by_label("Keep unknown faces of this gallery").check()
    page.get_by_label("At most, faces").fill("40")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The inbox is empty")).to_be_visible()
    inbox = api.get(f"/v1/galleries/{gallery}/unknowns").json()
    assert (inbox["keep"], inbox["most"], inbox["days"]) == (True, 40, 30)

    identify(api, gallery, pictures)
    kept = api.get(f"/v1/galleries/{gallery}/unknowns").json()["faces"]
    page.get_by_role("button", name="Refresh").click()
    person = page.get_by_role("listitem", name="Unknown person 1")
    expect(person.locator("img").first).to_have_js_property("complete", True)
    width = "(image) => image.naturalWidth > 50"
    page.wait_for_function(width, arg=person.locator("img").first.element_handle())
    person.get_by_label("Name of Unknown person 1").fill("Eileen")
    person.get_by_role("button", name="Name", exact=True).click()
    expect(page.get_by_text("The inbox is empty")).to_be_visible()
    (known,) = api.get(f"/v1/galleries/{gallery}/identities").json()["items"]
    assert (known["id"], known["name"], known["faces"]) == ("eileen", "Eileen", kept)

    api.delete(f"/v1/galleries/{gallery}/identities/eileen").raise_for_status()
    identify(api, gallery, pictures)
    page.get_by_role("button", name="Refresh").click()
    page.get_by_role("button", name="Discard Unknown person 1").click()
    expect(page.get_by_text("The inbox is empty")).to_be_visible()
    assert api.get(f"/v1/galleries/{gallery}/unknowns").json()["faces"] == 0
    assert api.get(f"/v1/galleries/{gallery}").json()["identities"] == 0


def test_only_faces_that_are_ticked_are_named(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    loose = {"policy": {"type": "cosine", "value": 0.2}}  # the mirrored face counts as the same person
    api.patch(f"/v1/galleries/{gallery}", json=loose).raise_for_status()
    api.patch(f"/v1/galleries/{gallery}/unknowns", json={"keep": True}).raise_for_status()
    identify(api, gallery, pictures)
    (group,) = api.get(f"/v1/galleries/{gallery}/unknowns").json()["clusters"]
    assert len(group["faces"]) == 2
    page = open_page(f"/#/gallery/{gallery}/people")
    page.get_by_role("link", name="Unknowns", exact=True).click()
    person = page.get_by_role("listitem", name="Unknown person 1")
    for n in (1, 2):
        person.get_by_role("checkbox", name=f"Face {n}").uncheck()
    person.get_by_label("Name of").fill("Eileen")
    person.get_by_role("button", name="Name", exact=True).click()
    expect(person.get_by_role("alert")).to_contain_text("No face is ticked")
    person.get_by_role("checkbox", name="Face 2").check()
    person.get_by_role("button", name="Name", exact=True).click()
    it_is = page.get_by_role("button", name="It is Eileen")
    expect(it_is).to_be_visible()
    left = api.get(f"/v1/galleries/{gallery}/unknowns").json()["clusters"]
    assert [face["id"] for each in left for face in each["faces"]] == [group["faces"][0]["id"]]
    it_is.click()
    expect(page.get_by_text("The inbox is empty")).to_be_visible()
    assert api.get(f"/v1/galleries/{gallery}/identities/eileen").json()["faces"] == 2


def test_two_identities_become_one(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    enroll(api, gallery, "eileen", "Eileen", pictures.closer)
    enroll(api, gallery, "e-collins", "E. Collins", pictures.tilted)
    page = open_page(f"/#/gallery/{gallery}/people/eileen")
    page.get_by_role("button", name="Merge").click()
    dialog = page.get_by_role("dialog", name="Merge into Eileen")
    dialog.get_by_label("Search").fill("coll")
    dialog.get_by_label("The other identity").select_option("e-collins")
    dialog.get_by_role("button", name="Merge").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    (left,) = api.get(f"/v1/galleries/{gallery}/identities").json()["items"]
    assert (left["id"], left["faces"]) == ("eileen", 2)


def test_long_names_stay_on_a_phone(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    name = "Dr. Annegret Schmidt-Wolkenstein von und zu Hohenzollern-Sigmaringen"
    enroll(api, gallery, "a" * 64, name, pictures.closer)
    fixed = {"policy": {"type": "cosine", "value": 1.0}}
    api.patch(f"/v1/galleries/{gallery}", json=fixed).raise_for_status()
    api.patch(f"/v1/galleries/{gallery}/unknowns", json={"keep": True}).raise_for_status()
    identify(api, gallery, pictures)
    page = open_page(f"/#/gallery/{gallery}/people", viewport={"width": 390, "height": 844})
    wide = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    expect(page.locator(".people li")).to_contain_text("Dr. Annegret")
    assert page.evaluate(wide) == 0
    page.get_by_role("link", name="Unknowns", exact=True).click()
    expect(page.get_by_role("button", name="It is Dr. Annegret").first).to_be_visible()
    assert page.evaluate(wide) == 0
    page.goto(f"/#/gallery/{gallery}/people/{'a' * 64}")
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.get_by_role("cell", name=pictures.closer.name).first).to_be_visible()
    assert page.evaluate(wide) == 0
