"""Live: frames in, faces with their tracks out, over a WebSocket."""

import asyncio
from time import monotonic
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import anyio.to_thread
from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect

from sphereid.api.dependencies import GalleryId, Parts
from sphereid.api.problems import PROBLEMS, Problem, problem_of
from sphereid.api.views import face_members
from sphereid.faces.errors import ImageError
from sphereid.gallery.errors import GalleryError
from sphereid.storage.errors import StorageError
from sphereid.video.live import GallerySession, LiveFace

router = APIRouter()
CLOSE_REFUSED: Final = 1008
CLOSE_BUSY: Final = 1013


class _Latest:
    """Holds the newest frame only: whoever is slow misses frames and never lags behind."""

    def __init__(self) -> None:
        self._arrived = asyncio.Event()
        self._frame: tuple[int, float, bytes] | None = None
        self.received = self.dropped = 0

    def put(self, data: bytes) -> None:
        self.dropped += self._frame is not None
        self._frame = (self.received, monotonic(), data)
        self.received += 1
        self._arrived.set()

    async def get(self) -> tuple[int, float, bytes]:
        await self._arrived.wait()
        self._arrived.clear()
        assert self._frame is not None
        frame, self._frame = self._frame, None
        return frame


@router.websocket("/v1/galleries/{gallery}/stream")
async def stream(
    websocket: WebSocket,
    gallery: GalleryId,
    min_face: Annotated[int | None, Query(ge=12, le=10_000)] = None,
    min_detection_score: Annotated[float | None, Query(ge=0, lt=1)] = None,
) -> None:
    """Send each frame as a binary message (JPEG, PNG or WebP); the answer is a JSON message about the newest
    frame that had arrived. Frames that came in between are dropped and counted, so that an answer is never
    older than the work on one frame and the wait for another. No picture is kept, but for
    one of each unknown face where the gallery has an inbox."""
    parts: Parts = websocket.app.state.parts
    if not _same_origin(websocket):
        await websocket.close(CLOSE_REFUSED, "other origins are not allowed")
        return
    try:
        async with parts.admission.enter():
            session = await anyio.to_thread.run_sync(
                lambda: parts.live.open(
                    gallery, min_face=min_face, min_score=min_detection_score, source="live"
                )
            )
            await websocket.accept()
            await _serve(websocket, parts, session)
    except (GalleryError, StorageError) as error:
        await websocket.close(CLOSE_REFUSED, str(error)[:120])
    except Problem as problem:  # no place
        await websocket.close(CLOSE_BUSY, str(problem.detail)[:120])
    except WebSocketDisconnect:
        pass


async def _serve(websocket: WebSocket, parts: Parts, session: GallerySession) -> None:
    begun = monotonic()  # before the first frame, which may have arrived already
    latest = _Latest()

    async def receive() -> None:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1000))
            data = message.get("bytes")
            if data is None:
                await websocket.send_json(_error("invalid_request", "send frames as binary messages", None))
            elif len(data) > parts.settings.limits.image_bytes:
                await websocket.send_json(_error("image_too_large", "this frame is too large", None))
            else:
                latest.put(data)

    async def work() -> None:
        while True:
            index, arrived, data = await latest.get()

            def look(data: bytes = data, arrived: float = arrived) -> tuple[int, int, list[LiveFace]]:
                image = parts.live.decode(data)
                return image.shape[1], image.shape[0], session.frame(arrived - begun, image)

            try:
                width, height, faces = await anyio.to_thread.run_sync(look)
            except ImageError as error:
                known = problem_of(error)
                await websocket.send_json(_error(known.code, str(known.detail), index))
                continue
            await websocket.send_json(
                {
                    "frame": index,
                    "time": round(arrived - begun, 3),
                    "latency_ms": round(1e3 * (monotonic() - arrived), 1),
                    "dropped": latest.dropped,
                    "image": {"width": width, "height": height},
                    "faces": [_shown(face) for face in faces],
                }
            )

    tasks = [asyncio.ensure_future(receive()), asyncio.ensure_future(work())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _shown(live: LiveFace) -> dict[str, Any]:
    identity = live.identity
    return face_members(live.face).model_dump(mode="json") | {
        "track": live.track,
        "since": round(live.since, 3),
        "decision": "unknown" if identity is None else "match",
        "reason": live.reason,
        "identity": None
        if identity is None
        else {"id": identity.id, "name": identity.name, "metadata": dict(identity.metadata)},
        "similarity": None if live.similarity is None else round(live.similarity, 6),
        "threshold": None if live.threshold is None else round(live.threshold, 6),
    }


def _error(code: str, detail: str, frame: int | None) -> dict[str, Any]:
    return {"error": {"code": code, "title": PROBLEMS[code][1], "detail": detail}, "frame": frame}


def _same_origin(websocket: WebSocket) -> bool:
    """Browsers name the page that opens a socket; pages of other sites must not use ours."""
    origin = websocket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == websocket.headers.get("host")
