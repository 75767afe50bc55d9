"""Several models at once: each gallery is served by the one whose embeddings it holds, and changes it without
a gap."""

import json
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from sphereid.cli import app
from typer.testing import CliRunner, Result

from tests.api.conftest import assert_problem
from tests.api.test_bulk import finished
from tests.photographs import photograph
from tests.server import serving, settings_for, until
from tests.toy import write_toy_model

PEOPLE = 6


@pytest.fixture
def two_models(tmp_path: Path) -> Path:
    for seed, name in enumerate(("old", "young")):
        write_toy_model(tmp_path / "models", name, seed=seed)
    return tmp_path


def fill(client: httpx.Client, gallery: str, portrait: NDArray[np.uint8]) -> None:
    rules = {"policy": {"type": "cosine", "value": 0.5}, "keep_crops": True}
    client.post("/v1/galleries", json={"id": gallery, **rules}).raise_for_status()
    for person in range(PEOPLE):
        files = [("images", photograph(portrait, person, number)) for number in range(2)]
        path = f"/v1/galleries/{gallery}/identities/p{person}/faces"
        client.post(path, files=files, data={"create": "true"}).raise_for_status()


def named(client: httpx.Client, gallery: str, image: bytes) -> tuple[str | None, str]:
    """Who is on the image, and by which model."""
    answer = client.post(f"/v1/galleries/{gallery}/identify", files={"image": image})
    assert answer.status_code == 200, answer.text
    (face,) = answer.json()["faces"]
    return (face["identity"] or {}).get("id"), answer.json()["model"]["name"]


def test_a_gallery_changes_its_model_and_nobody_notices(
    two_models: Path, portrait: NDArray[np.uint8]
) -> None:
    settings = settings_for(two_models, model="old")
    probe = photograph(portrait, 3, 1)
    seen: list[tuple[str | None, str]] = []
    faults: list[BaseException] = []
    stop = threading.Event()
    with serving(settings) as running:
        client = running.client
        for gallery in ("g", "other"):
            fill(client, gallery, portrait)

        def ask() -> None:
            try:
                with httpx.Client(base_url=running.url, timeout=120) as mine:
                    while not stop.is_set():
                        seen.append(named(mine, "g", probe))
            except BaseException as error:
                faults.append(error)

        def enroll() -> None:
            try:
                with httpx.Client(base_url=running.url, timeout=120) as mine:
                    for number in range(2, 200):
                        if stop.is_set():
                            return
                        files = {"images": photograph(portrait, 0, number)}
                        path = "/v1/galleries/g/identities/p0/faces"
                        assert mine.post(path, files=files).status_code == 201
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=work) for work in (ask, ask, enroll)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: len(seen) >= 4 or bool(faults))
            body = {"model": "young", "force": True}
            job = finished(client, client.post("/v1/galleries/g/reembed", json=body).json())
            assert job["state"] == "succeeded", job
            asked = len(seen)
            until(lambda: len(seen) >= asked + 4 or bool(faults))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not faults, faults
        assert {identity for identity, _ in seen} == {"p3"}
        models = [model for _, model in seen]
        assert models[0] == "old"
        assert models[-1] == "young"
        assert named(client, "other", probe) == ("p3", "old")
        files = {"image": probe}
        own = client.post("/v1/galleries/g/identities/p3/verify", files=files).json()
        assert (own["decision"], own["model"]["name"]) == ("match", "young")
        loaded = {each["name"]: each["loaded"] for each in client.get("/v1/models").json()["models"]}
        assert loaded == {"old": True, "young": True}
    with serving(settings) as running:  # the other one is loaded when somebody asks
        assert named(running.client, "g", probe) == ("p3", "young")
        assert named(running.client, "other", probe) == ("p3", "old")


def test_the_command_line_asks_a_running_server(
    two_models: Path, portrait: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPHEREID_API_KEYS", "correct-horse-battery")
    settings = settings_for(two_models, model="old", api_keys=("correct-horse-battery",))
    key = {"Authorization": "Bearer correct-horse-battery"}
    with serving(settings, **key) as running:
        fill(running.client, "g", portrait)

        def reembed(*more: str) -> Result:
            command = ["gallery", "reembed", "--model", "young", "--gallery", "g", "--json", *more]
            return CliRunner().invoke(app, [*command, "--server", running.url])

        compared = reembed("--compare-only")
        assert compared.exit_code == 0, compared.output
        assert not json.loads(compared.stdout)["exchanged"]
        done = reembed("--force")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["faces"] == 2 * PEOPLE
        assert named(running.client, "g", photograph(portrait, 1, 1)) == ("p1", "young")
        refused = reembed()
        assert refused.exit_code == 2
        assert "already" in refused.output


def test_a_model_that_is_gone_is_named(two_models: Path, portrait: NDArray[np.uint8]) -> None:
    with serving(settings_for(two_models, model="young")) as running:
        fill(running.client, "g", portrait)
    (two_models / "models" / "young" / "manifest.json").unlink()
    with serving(settings_for(two_models, model="old")) as running:
        answer = running.client.post("/v1/galleries/g/identify", files={"image": photograph(portrait, 0, 0)})
        assert_problem(answer, 409, "contract_mismatch")
        assert "models folder" in answer.json()["detail"]
