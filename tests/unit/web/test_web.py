"""The console's files and the headers that they are served with."""

import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sphereid.web.routes import FILES, HEADERS, router

SCRIPTS = sorted(FILES.rglob("*.js"))
STYLES = sorted(FILES.rglob("*.css"))


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.include_router(router)
    return TestClient(app)


@pytest.mark.parametrize("path", ["/", "/static/js/main.js", "/static/css/tokens.css", "/static/favicon.svg"])
def test_every_file_carries_the_headers(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    kinds = {"js": "javascript", "css": "text/css", "svg": "image/svg+xml", "/": "text/html"}
    assert kinds[path.rsplit(".", 1)[-1]] in answer.headers["content-type"]
    again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head(path).status_code == 200


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"unsafe|https?:|\*|script-src[^;]*(blob|data)", policy)


@pytest.mark.parametrize(
    "path",
    ["/static/nothing.js", "/static/", "/static/js", "/static/..%2froutes.py", "/static/%2e%2e/routes.py",
     "/static//etc/passwd", "/static/%00"],
)  # fmt: skip
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_touch_no_markup_and_import_what_is_there(script: Path) -> None:
    text = script.read_text()
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setTimeout\(\s*[\"'`]"
    )
    assert not re.search(forbidden, text)
    urls = set(re.findall(r"https?://[^\s\"'`]+", text))
    assert urls <= {"http://www.w3.org/2000/svg"}  # a namespace, not an address
    for name in re.findall(r"from \"([^\"]+)\"", text):
        assert name.startswith("."), f"{name} would come from elsewhere"
        assert (script.parent / name).is_file(), f"{script.name} imports {name}, which is not there"
    assert len(text.splitlines()) < 400


def test_styles_and_page_fetch_nothing_from_elsewhere() -> None:
    for style in STYLES:
        assert not re.search(r"@import|url\(", style.read_text())
    page = (FILES / "index.html").read_text()
    assert not re.search(r"https?://|<style|\sstyle=|\son\w+=|<script(?![^>]* src=)", page)
    for address in re.findall(r"(?:src|href)=\"(/static/[^\"]+)\"", page):
        assert (FILES / address.removeprefix("/static/")).is_file()
