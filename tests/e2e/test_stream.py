"""Live frames over a real WebSocket."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from fastapi import WebSocket, WebSocketDisconnect
from numpy.typing import NDArray
from sphereid.api.routes import stream as route
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.e2e.test_video import film
from tests.server import Running, jpeg, serving, settings_for
from tests.toy import write_toy_model

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, portrait: Pixels) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("stream")
    write_toy_model(folder / "models")
    with serving(settings_for(folder)) as running:
        body = {"id": "cast", "policy": {"type": "cosine", "value": 0.8}}
        running.client.post("/v1/galleries", json=body).raise_for_status()
        running.client.post(
            "/v1/galleries/cast/identities/eileen/faces",
            files={"images": ("a.jpg", jpeg(film(portrait)[5]), "image/jpeg")},
            data={"create": "true", "name": "Eileen"},
        ).raise_for_status()
        yield running


def open_stream(server: Running, gallery: str = "cast", **more: Any) -> ClientConnection:
    url = server.url.replace("http://", "ws://") + f"/v1/galleries/{gallery}/stream"
    return connect(url, open_timeout=60, close_timeout=60, **more)


def ask(stream: ClientConnection, frame: bytes) -> dict[str, Any]:
    stream.send(frame)
    answer: dict[str, Any] = json.loads(stream.recv(timeout=60))
    return answer


def test_a_face_keeps_its_track_and_its_name(server: Running, portrait: Pixels) -> None:
    frames = [jpeg(frame) for frame in film(portrait, 16)]
    with open_stream(server) as stream:
        answers = [ask(stream, frame) for frame in frames]
    assert [a["frame"] for a in answers] == list(range(16))
    assert all(a["image"] == {"width": 320, "height": 240} and a["dropped"] == 0 for a in answers)
    named = [face for a in answers[:11] for face in a["faces"]]
    assert len(named) >= 10
    assert {(f["decision"], f["identity"]["id"], f["track"]) for f in named} == {("match", "eileen", 1)}
    assert all(f["similarity"] >= f["threshold"] == 0.8 for f in named)
    assert {"box", "landmarks", "detection_score", "quality", "since"} <= set(named[0])
    assert [a["faces"] for a in answers[13:]] == [[], [], []]


def test_a_frame_that_came_before_the_service_looked_is_answered(server: Running, portrait: Pixels) -> None:
    """On a busy machine a frame is there before anybody waits for one; its time must not be negative."""
    sent: list[Any] = []

    async def converse() -> None:
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        inbox.put_nowait({"type": "websocket.connect"})
        inbox.put_nowait({"type": "websocket.receive", "bytes": jpeg(film(portrait)[3])})

        async def send(message: Any) -> None:
            if message["type"] == "websocket.send":
                sent.append(json.loads(message["text"]))
                inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})

        websocket = WebSocket({"type": "websocket"}, inbox.get, send)
        await websocket.accept()
        with pytest.raises(WebSocketDisconnect):
            await route._serve(websocket, server.parts, server.parts.live.open("cast"))

    asyncio.run(converse())
    assert [len(answer["faces"]) for answer in sent] == [1]
    assert sent[0]["time"] >= 0


def test_a_stranger_is_tracked_without_a_name(server: Running, portrait: Pixels) -> None:
    negative = portrait.copy()
    negative[118:] = 255 - negative[118:]
    negative[:, 226:] = negative[:, 226:] // 2
    frame = jpeg(cv2.resize(negative, (256, 256)))
    with open_stream(server) as stream:
        faces = [ask(stream, frame)["faces"] for _ in range(3)]
    seen = [(f["decision"], f["identity"]) for each in faces for f in each]
    assert seen
    assert set(seen) == {("unknown", None)}


def test_stale_frames_are_dropped_and_the_newest_is_answered(server: Running, portrait: Pixels) -> None:
    frames = [jpeg(frame) for frame in film(portrait, 30)]
    with open_stream(server) as stream:
        for frame in frames:
            stream.send(frame)
        answers = []
        while not answers or answers[-1]["frame"] < 29:
            answers.append(json.loads(stream.recv(timeout=60)))
    assert len(answers) + answers[-1]["dropped"] == 30
    assert len(answers) < 30
    assert [a["frame"] for a in answers] == sorted(a["frame"] for a in answers)


def test_a_broken_frame_is_named_and_the_stream_goes_on(server: Running, portrait: Pixels) -> None:
    good = jpeg(film(portrait)[3])
    with open_stream(server) as stream:
        assert ask(stream, b"no picture")["error"]["code"] == "image_unsupported"
        assert ask(stream, good[: len(good) // 3])["frame"] == 1
        stream.send("text")
        assert json.loads(stream.recv(timeout=60))["error"]["code"] == "invalid_request"
        assert len(ask(stream, good)["faces"]) == 1


def test_what_is_refused(server: Running) -> None:
    for refused in (
        lambda: open_stream(server, "nobody"),
        lambda: open_stream(server, origin="http://evil.example"),
    ):
        with pytest.raises((InvalidStatus, ConnectionClosed)):
            refused().recv(timeout=10)
    with open_stream(server, origin=server.url):
        pass


def test_a_stream_remembers_only_what_is_near(server: Running, portrait: Pixels) -> None:
    session = server.parts.live.open("cast")
    frame = film(portrait)[3]
    tracks = []
    for time in (0.0, 0.1, 100.0, 100.1, 200.0):
        tracks += [face.track for face in session.frame(time, frame)]
    assert tracks == [1, 1, 2, 2, 3]
    assert session.remembered == 1
