"""Cameras that the service watches: a generated MJPEG stream and a real webhook receiver, on loopback."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from sphereid.monitors import signing, webhook
from sphereid.video import capture, presence

from tests.cameras import Camera, Receiver, filming, receiving
from tests.e2e.process import service as process
from tests.e2e.test_video import film
from tests.server import Running, jpeg, serving, settings_for, until
from tests.toy import write_toy_model
from tests.unit.video.clips import write_clip

Pixels = NDArray[np.uint8]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that a test need not wait out."""
    monkeypatch.setattr(capture, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(capture, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(webhook, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(webhook, "LONGEST_WAIT", 0.02)
    monkeypatch.setattr(presence, "ABSENT", 0.3)


@contextmanager
def service(folder: Path, portrait: Pixels, *, sources: str, webhooks: str = "") -> Iterator[Running]:
    """A server that knows the portrait, and lets monitors do what is given."""
    if not (folder / "models").exists():
        write_toy_model(folder / "models")
    rules = {"sources": sources, "webhooks": webhooks, "most": 2}
    with serving(settings_for(folder, monitors=rules)) as running:
        if running.client.get("/v1/galleries/cast").status_code == 404:
            body = {"id": "cast", "policy": {"type": "cosine", "value": 0.8}}
            running.client.post("/v1/galleries", json=body).raise_for_status()
            running.client.post(
                "/v1/galleries/cast/identities/eileen/faces",
                files={"images": ("a.jpg", jpeg(film(portrait)[5]), "image/jpeg")},
                data={"create": "true", "name": "Eileen"},
            ).raise_for_status()
        yield running


def monitor(client: httpx.Client, name: str = "door") -> dict[str, Any]:
    answer = client.get(f"/v1/monitors/{name}")
    answer.raise_for_status()
    shown: dict[str, Any] = answer.json()
    return shown


def follow(client: httpx.Client, name: str = "door") -> Iterator[tuple[str, dict[str, Any]]]:
    """Its server-sent events from the first on."""
    with client.stream("GET", f"/v1/monitors/{name}/events", headers={"Last-Event-ID": "0"}) as answer:
        kind = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                yield kind, json.loads(line[6:]) if line.startswith("data: {") else {}


def test_a_camera_is_watched_and_events_are_told(hasty: None, portrait: Pixels, tmp_path: Path) -> None:
    camera, receiver = Camera(jpeg(film(portrait)[5])), Receiver(refuse=2)
    empty = jpeg(film(portrait)[-1])
    with (
        filming(camera) as source,
        receiving(receiver) as hook,
        service(tmp_path, portrait, sources=source, webhooks=hook) as running,
    ):
        client = running.client
        wanted = {
            "id": "door",
            "name": "Front door",
            "source": source.replace("://", "://user:password@") + "?token=t",
            "gallery": "cast",
            "rate": 30,
            "webhook": {"url": hook},
        }
        made = client.post("/v1/monitors", json=wanted)
        assert made.status_code == 201, made.text
        secret = made.json()["webhook"]["secret"]
        shown = client.get("/v1/monitors").text + client.get("/v1/monitors/door").text
        for hidden in (secret, "password", "token=t"):
            assert hidden not in shown

        until(lambda: len(receiver.taken) >= 1)
        assert [len(receiver.tries), len(receiver.taken)] == [3, 1]
        assert len({headers["webhook-id"] for headers, _ in receiver.tries}) == 1  # one event, tried thrice
        for headers, body in receiver.tries:
            assert signing.verify(secret, headers, body, time.time())
        arrived = receiver.events[0]
        assert arrived["type"] == "person.arrived"
        assert (arrived["monitor"]["id"], arrived["gallery"]) == ("door", "cast")
        assert arrived["identity"] == {"id": "eileen", "name": "Eileen"}
        assert arrived["similarity"] >= 0.8

        camera.broken.set()
        until(lambda: monitor(client)["reconnects"] >= 1 and monitor(client)["state"] == "running")
        camera.picture = empty
        until(lambda: any(event["type"] == "person.left" for event in receiver.events))
        told = []
        for kind, data in follow(client):
            told += [data["type"]] if kind == "presence" else []
            if "person.left" in told:
                break
        assert told[0] == "person.arrived"
        deliveries = monitor(client)["deliveries"]
        assert (deliveries["retries"], deliveries["dead"]) == (2, 0)
        assert "answered 503" in deliveries["last_error"]

        assert client.delete("/v1/monitors/door").json() == {"id": "door", "deleted": True}
        assert client.get("/v1/monitors/door").json()["code"] == "monitor_not_found"
        assert not list((tmp_path / "data" / "monitors").glob("*"))


def test_a_monitor_goes_on_after_a_restart_and_delivers_what_waited(
    hasty: None, portrait: Pixels, tmp_path: Path
) -> None:
    camera, receiver = Camera(jpeg(film(portrait)[5])), Receiver(refuse=10**6)
    with filming(camera) as source, receiving(receiver) as hook:
        with service(tmp_path, portrait, sources=source, webhooks=hook) as first:
            body = {"id": "door", "source": source, "gallery": "cast", "rate": 30, "webhook": {"url": hook}}
            first.client.post("/v1/monitors", json=body).raise_for_status()
            until(lambda: len(receiver.tries) >= 1)
        for file in ("door.json", "door.outbox"):
            assert (tmp_path / "data" / "monitors" / file).stat().st_mode & 0o077 == 0
        seen = receiver.tries[0][0]["webhook-id"]
        receiver.refuse = 0
        camera.picture = jpeg(film(portrait)[-1])
        with service(tmp_path, portrait, sources=source, webhooks=hook) as second:
            until(lambda: monitor(second.client)["state"] == "running")
            until(lambda: len(receiver.taken) >= 1)
            assert receiver.taken[0][0]["webhook-id"] == seen
        with service(tmp_path, portrait, sources="rtsp://elsewhere/") as third:
            now = monitor(third.client)
            assert now["state"] == "failed"
            assert "SPHEREID_MONITORS__" in now["detail"]


def test_a_service_that_is_killed_delivers_what_waited(portrait: Pixels, tmp_path: Path) -> None:
    """Its event was refused once, and it dies before it sees that the next try was taken."""
    write_toy_model(tmp_path / "models")
    camera, receiver = Camera(jpeg(film(portrait)[5])), Receiver(refuse=1)
    folders = tmp_path / "data", tmp_path / "models"
    with filming(camera) as source, receiving(receiver) as hook:
        rules = {"SPHEREID_MONITORS__SOURCES": source, "SPHEREID_MONITORS__WEBHOOKS": hook}
        with process(*folders, **rules) as first, first.client() as client:
            body = {"id": "door", "source": source, "rate": 10, "webhook": {"url": hook}}
            secret = client.post("/v1/monitors", json=body).raise_for_status().json()["webhook"]["secret"]
            until(lambda: len(receiver.tries) == 1)
            receiver.silent.set()
            until(lambda: len(receiver.tries) == 2)
            first.kill()
        receiver.silent.clear()
        with process(*folders, **rules) as second, second.client() as client:
            until(lambda: len(receiver.taken) >= 1)
            until(lambda: monitor(client)["deliveries"]["delivered"] >= 1)
    for headers, content in receiver.tries:
        assert signing.verify(secret, headers, content, time.time())
    assert {headers["webhook-id"] for headers, _ in receiver.tries[:3]} == {
        receiver.taken[0][0]["webhook-id"]
    }
    assert len({content for _, content in receiver.tries[:3]}) == 1


def test_a_file_is_watched_to_its_end_and_strangers_reach_the_inbox(
    hasty: None, portrait: Pixels, tmp_path: Path
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    negative = portrait.copy()
    negative[118:] = 255 - negative[118:]
    negative[:, 226:] = negative[:, 226:] // 2
    stranger = cv2.resize(negative, (256, 256))
    write_clip(films / "in.mp4", [stranger] * 40, rate=10)
    with service(tmp_path, portrait, sources=str(films)) as running:
        client = running.client
        client.patch("/v1/galleries/cast/unknowns", json={"keep": True}).raise_for_status()
        body = {"id": "film", "source": str(films / "in.mp4"), "gallery": "cast", "rate": 30}
        client.post("/v1/monitors", json=body).raise_for_status()
        until(lambda: monitor(client, "film")["state"] == "ended")
        assert monitor(client, "film")["events"] == 2
        (group,) = client.get("/v1/galleries/cast/unknowns").json()["clusters"]
        assert [face["source"] for face in group["faces"]] == [str(films / "in.mp4")]
    with service(tmp_path, portrait, sources=str(films)) as again:
        assert monitor(again.client, "film")["state"] == "ended"


def test_what_is_refused(portrait: Pixels, tmp_path: Path) -> None:
    with service(tmp_path, portrait, sources="http://127.0.0.1:9/") as running:
        client = running.client
        good = {"id": "a", "source": "http://127.0.0.1:9/camera"}
        for change, status, code in (
            ({"source": "http://169.254.169.254/latest/meta-data"}, 403, "source_not_allowed"),
            ({"source": "/etc/passwd"}, 403, "source_not_allowed"),
            ({"webhook": {"url": "http://127.0.0.1:9/"}}, 403, "webhook_not_allowed"),
            ({"gallery": "nobody"}, 404, "gallery_not_found"),
            ({"rate": 0}, 422, "invalid_request"),
            ({"speed": 1}, 422, "invalid_request"),
        ):
            answer = client.post("/v1/monitors", json=good | change)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert client.get("/v1/monitors").json()["items"] == []
        client.post("/v1/monitors", json=good).raise_for_status()
        assert client.post("/v1/monitors", json=good).json()["code"] == "monitor_exists"
        client.post("/v1/monitors", json=good | {"id": "b"}).raise_for_status()
        assert client.post("/v1/monitors", json=good | {"id": "c"}).json()["code"] == "too_many_monitors"
        until(lambda: monitor(client, "a")["state"] == "reconnecting")
        assert "trying again" in monitor(client, "a")["detail"]
