"""For those who run the service: a snapshot of all galleries."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO

import anyio.to_thread
from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from sphereid.api.dependencies import PartsDep, problems

router = APIRouter(prefix="/v1", tags=["operation"])

MEDIA_TYPE = "application/vnd.sqlite3"
CHUNK = 1 << 20


@router.get(
    "/snapshot",
    summary="Download all galleries",
    response_class=StreamingResponse,
    responses={200: {"content": {MEDIA_TYPE: {}}, "description": "The snapshot."}, **problems()},
)
async def download_snapshot(parts: PartsDep) -> Response:
    """One file with every gallery as it is at one moment, while writes go on; `sphereid restore` brings it
    back. It holds the embeddings: keep it like the photographs themselves."""
    file = await anyio.to_thread.run_sync(parts.gallery.open_backup)
    size = file.seek(0, 2)
    file.seek(0)
    name = f"sphereid-{datetime.now(UTC):%Y%m%d-%H%M%S}.snapshot"
    headers = {"Content-Length": str(size), "Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_chunks(file), headers=headers, media_type=MEDIA_TYPE)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk
