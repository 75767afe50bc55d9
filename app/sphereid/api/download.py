"""Files that are encrypted on the disk, on their way to a client."""

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote

import anyio.to_thread
from fastapi.responses import StreamingResponse
from starlette.requests import Request
from starlette.responses import Response

from sphereid.storage.encrypted_files import EncryptedFiles

_PIECE: Final = 1 << 18
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")


async def sealed_file(
    request: Request, files: EncryptedFiles, path: Path, media_type: str, name: str
) -> Response:
    """The plain content of an encrypted file. A request for one range of bytes gets that, as players of
    videos ask for it; one for several gets everything."""
    file, size = await anyio.to_thread.run_sync(_opened, files, path)
    headers = {"Accept-Ranges": "bytes", "Content-Disposition": f"inline; filename*=utf-8''{quote(name)}"}
    wanted = _RANGE.fullmatch(request.headers.get("range", ""))
    start, end, status = 0, size, 200
    if wanted and wanted[0] != "bytes=-":
        first, last = wanted.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        if start >= end:
            await anyio.to_thread.run_sync(file.close)
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    return StreamingResponse(_pieces(file, start, end), status, headers, media_type)


def _opened(files: EncryptedFiles, path: Path) -> tuple[BinaryIO, int]:
    file = files.read(path)
    return file, file.seek(0, os.SEEK_END)


async def _pieces(file: BinaryIO, start: int, end: int) -> AsyncIterator[bytes]:
    try:
        await anyio.to_thread.run_sync(file.seek, start)
        while start < end:
            piece = await anyio.to_thread.run_sync(file.read, min(_PIECE, end - start))
            start += len(piece)
            yield piece
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(file.close)
