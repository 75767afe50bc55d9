"""The audit log over HTTP."""

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sphereid.settings import Settings

from tests.api.conftest import assert_problem
from tests.server import Running, serving


def test_who_did_what(client: httpx.Client, gallery: str, face_jpeg: bytes, server: Running) -> None:
    name, request = gallery.rsplit("/")[-1], f"r-{secrets.token_hex(4)}"
    client.post(
        f"{gallery}/identities/ann/faces",
        files={"images": face_jpeg},
        data={"create": "true", "name": "Ann Surname"},
        headers={"X-Request-ID": request},
    ).raise_for_status()
    client.post(f"{gallery}/identify", files={"image": face_jpeg}).raise_for_status()
    client.delete(f"{gallery}/identities/ann").raise_for_status()
    server.parts.gallery.audit.flush()
    shown = client.get("/v1/audit", params={"gallery": name}).json()
    entries = shown["items"]
    by_action = {entry["action"]: entry for entry in entries}
    assert by_action.keys() == {"gallery.create", "face.enroll", "identify", "identity.delete"}
    enrolled = by_action["face.enroll"]
    assert (enrolled["actor"], enrolled["request_id"], enrolled["identity"]) == ("anonymous", request, "ann")
    assert by_action["identify"]["details"] == {"decision": "match", "similarity": 1.0, "threshold": 0.9}
    assert "Surname" not in str(entries)
    first = client.get("/v1/audit", params={"gallery": name, "limit": 2}).json()
    rest = client.get("/v1/audit", params={"gallery": name, "cursor": first["next_cursor"]}).json()
    assert first["items"] + rest["items"] == entries
    assert rest["next_cursor"] is None
    only = client.get("/v1/audit", params={"gallery": name, "identity": "ann", "action": "identity."}).json()
    assert [entry["action"] for entry in only["items"]] == ["identity.delete"]


def test_the_state_of_the_chain(client: httpx.Client, gallery: str) -> None:
    state = client.get("/v1/audit/state").json()
    assert (state["intact"], state["fault"]) == (True, None)
    assert state["head"].startswith(f"{state['entries']}:")
    assert client.get("/v1/audit/state", params={"head": state["head"]}).json()["noted"]
    foreign = client.get("/v1/audit/state", params={"head": f"1:{'ab' * 32}"}).json()
    assert not foreign["intact"]
    assert_problem(client.get("/v1/audit/state", params={"head": "1"}), 422, "invalid_request")


@pytest.mark.parametrize("params", [{"cursor": "nonsense"}, {"action": "A"}, {"gallery": "-"}, {"limit": 0}])
def test_questions_that_are_refused(client: httpx.Client, params: dict[str, str]) -> None:
    assert_problem(client.get("/v1/audit", params=params), 422, "invalid_request")


def test_keys_are_told_apart_and_not_shown(tmp_path: Path, toy_settings: Callable[..., Settings]) -> None:
    keys = "first-key-of-two", "second-key-of-two"
    settings = toy_settings(tmp_path, api_keys=tuple(SecretStr(key) for key in keys))
    with serving(settings) as running:
        for number, key in enumerate(keys):
            headers = {"Authorization": f"Bearer {key}"}
            made = running.client.post("/v1/galleries", json={"id": f"g{number}"}, headers=headers)
            assert made.status_code == 201
        shown = running.client.get("/v1/audit", headers={"Authorization": f"Bearer {keys[0]}"})
    actors = [entry["actor"] for entry in shown.json()["items"]]
    digests = [hashlib.sha256(key.encode()).hexdigest()[:8] for key in keys]
    assert actors == [f"key:{digests[1]}", f"key:{digests[0]}", "service"]
    assert not any(key in shown.text for key in keys)
