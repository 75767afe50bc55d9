"""The console trusts nothing that the server stores, keeps the key to itself, and tells errors plainly."""

import httpx
import pytest
from playwright.sync_api import Error, Page, expect

from tests.e2e.console.conftest import Opener, Pictures
from tests.e2e.console.test_flows import choose, enroll, to_identify

HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"


def test_names_and_metadata_are_text(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    api.patch(f"/v1/galleries/{gallery}", json={"name": HOSTILE}).raise_for_status()
    enroll(api, gallery, "mallory", HOSTILE, pictures.closer)
    metadata = {"color": "red;background:url(//example.org)", "<b>": HOSTILE}
    api.patch(f"/v1/galleries/{gallery}/identities/mallory", json={"metadata": metadata}).raise_for_status()

    page = open_page(f"/#/gallery/{gallery}/people")
    expect(page.locator(".people strong")).to_have_text(HOSTILE)
    expect(page.get_by_label("Gallery", exact=True)).to_contain_text(HOSTILE)
    page.locator(".people a").click()
    expect(page.get_by_role("heading", level=2, name=HOSTILE)).to_be_visible()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text(HOSTILE)
    page.keyboard.press("Escape")
    to_identify(page)
    choose(page, pictures.portrait)
    expect(page.locator(".face-name")).to_have_text(HOSTILE)
    expect(page.locator(".face-box text")).to_contain_text("<img src=x")
    assert page.locator("main script, main img[src='x'], main b").count() == 0
    assert page.title() == "Identify · SphereID"
    assert page.locator(".face-box").get_attribute("style") is None


def test_the_policy_lets_no_markup_and_no_other_host_in(stranger: Page) -> None:
    page = stranger
    page.goto("/")
    with pytest.raises(Error, match="TrustedHTML"):
        page.evaluate("() => { document.body.innerHTML = '<p>markup</p>'; }")
    blocked = page.evaluate(
        "() => fetch('https://example.org/').then(() => 'reached', (error) => error.message)"
    )
    assert "Failed to fetch" in blocked


def test_the_key_is_asked_for_and_stays_in_the_tab(stranger: Page) -> None:
    page = stranger
    page.goto("/#/gallery/default/people")
    dialog = page.get_by_role("dialog", name="Sign in")
    expect(dialog).to_contain_text("asks for an API key")
    dialog.get_by_label("API key").fill("wrong-horse")
    dialog.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("dialog")).to_contain_text("did not accept this key")
    page.get_by_role("dialog").get_by_label("API key").fill("correct-horse")
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Nobody is enrolled yet")).to_be_visible()

    assert page.evaluate("() => Object.values(sessionStorage)").count("correct-horse") == 1
    assert "correct-horse" not in page.evaluate("() => JSON.stringify(localStorage) + document.cookie")
    assert "correct-horse" not in page.url
    page.reload()
    expect(page.get_by_text("Nobody is enrolled yet")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("dialog", name="Sign in")).to_be_visible()
    assert page.evaluate("() => sessionStorage.getItem('sphereid.key')") is None

    page.keyboard.press("Escape")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("A valid API key is needed")


def test_a_problem_shows_its_title_its_detail_and_its_request(open_page: Opener, pictures: Pictures) -> None:
    page = open_page("/#/identify")
    with page.expect_response("**/identify") as answered:
        choose(page, pictures.broken)
    problem = answered.value.json()
    alert = page.get_by_role("alert")
    for member in ("title", "detail", "request_id"):
        expect(alert).to_contain_text(problem[member])
    choose(page, pictures.portrait)  # and the page goes on
    expect(page.locator(".face-card")).to_have_count(1)


def test_a_lost_server_is_said_and_tried_again(open_page: Opener, pictures: Pictures) -> None:
    page = open_page("/#/identify")
    expect(page.locator("#drop")).to_be_visible()
    page.route("**/identify", lambda route: route.abort())
    choose(page, pictures.portrait)
    expect(page.get_by_role("alert")).to_contain_text("The service cannot be reached")
    page.unroute("**/identify")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".face-card")).to_have_count(1)


def test_a_request_that_nobody_waits_for_is_no_error(
    open_page: Opener, api: httpx.Client, pictures: Pictures
) -> None:
    page = open_page("/#/identify")
    expect(page.locator("#drop")).to_be_visible()
    with page.expect_request("**/identify"):
        choose(page, pictures.portrait)
    page.get_by_role("link", name="Verify", exact=True).click()
    expect(page.get_by_role("heading", level=1, name="Verify")).to_be_visible()
    requests = [line for line in api.get("/metrics").text.splitlines() if "/identify" in line]
    assert not [line for line in requests if 'status="5' in line]


def test_a_busy_server_is_waited_for(
    open_page: Opener, api: httpx.Client, gallery: str, pictures: Pictures
) -> None:
    page = open_page(f"/#/gallery/{gallery}/enroll")
    expect(page.locator("#drop")).to_be_visible()
    keys: list[str] = []

    def busy_once(route: object) -> None:
        keys.append(route.request.headers["idempotency-key"])  # type: ignore[attr-defined]
        if len(keys) == 1:
            route.fulfill(status=503, headers={"Retry-After": "0.2"}, json={"title": "busy"})  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    page.route("**/faces", busy_once)
    choose(page, pictures.closer)
    page.get_by_role("button", name="Enroll", exact=True).click()
    expect(page.locator("#enroll-summary")).to_have_text("1 of 1 picture enrolled")
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert api.get(f"/v1/galleries/{gallery}").json()["faces"] == 1


def test_the_keyboard_is_enough(open_page: Opener) -> None:
    page = open_page("/#/identify")
    expect(page.locator("#drop")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    for name in ("Gallery", "Choose a picture"):
        page.keyboard.press("Tab")
        expect(page.get_by_label(name, exact=True).or_(page.get_by_role("button", name=name))).to_be_focused()

    page.get_by_role("link", name="Gallery", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Gallery")).to_be_focused()
    expect(page.locator("main .people, main .empty").first).to_be_visible()  # all of the page is drawn
    button = page.get_by_role("button", name="New gallery")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_label("Name")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(button).to_be_focused()


def test_the_theme_is_kept(open_page: Opener) -> None:
    page = open_page("/#/identify", color_scheme="light")
    paper = "() => getComputedStyle(document.documentElement).backgroundColor"
    assert page.evaluate(paper) == "rgb(244, 245, 247)"
    page.get_by_role("button", name="Dark theme").click()
    assert page.evaluate(paper) == "rgb(15, 20, 26)"
    page.reload()
    expect(page.get_by_role("button", name="Light theme")).to_be_visible()
    assert page.evaluate(paper) == "rgb(15, 20, 26)"


def test_pages_without_routes_are_not_offered(open_page: Opener, api: httpx.Client) -> None:
    document = api.get("/openapi.json").json()
    for path in [path for path in document["paths"] if "videos" in path or "jobs" in path]:
        del document["paths"][path]
    page = open_page("/healthz")
    page.route("**/openapi.json", lambda route: route.fulfill(json=document))
    page.goto("/#/video")
    expect(page.get_by_role("heading", level=1, name="Identify")).to_be_visible()
    offered = page.locator("#nav a").all_inner_texts()
    assert {"Identify", "Verify", "Gallery", "System"} <= set(offered)
    assert not {"Video", "Jobs"} & set(offered)


def test_the_documentation_asks_nobody_else(open_page: Opener) -> None:
    page = open_page("/docs")
    expect(page.locator(".opblock-summary-path").first).to_be_visible()
    expect(page.get_by_text("/v1/verify", exact=True).first).to_be_visible()
