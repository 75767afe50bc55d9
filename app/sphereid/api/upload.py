"""Large uploads: multipart/form-data whose one file goes to disk as it arrives."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import anyio.to_thread
from pydantic import ValidationError
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from sphereid.api.body import file_name, media_type
from sphereid.api.problems import Problem, invalid
from sphereid.api.schemas import Input
from sphereid.storage.encrypted_files import EncryptedFiles

OptionsT = TypeVar("OptionsT", bound=Input)
_ENVELOPE: Final = 64 * 1024
"""Bytes that fields, part headers and boundaries may take beside the file."""
_FIELD: Final = 4096


@dataclass(frozen=True, slots=True)
class Saved:
    """What was uploaded. name: the client's file name without folders. digest: SHA-256 of the file."""

    fields: dict[str, str]
    name: str | None
    size: int
    digest: bytes


async def save_upload(
    request: Request,
    target: Path,
    *,
    field: str,
    max_bytes: int,
    patience: float,
    files: EncryptedFiles,
    too_large: str = "video_too_large",
) -> Saved:
    """Write the file in `field` to `target`. max_bytes: of the file; beyond it comes the problem `too_large`.
    patience: seconds between two pieces. files: opens the file.

    Raises Problem: 400, 408, 413, 415 or 422; then `target` may hold a part of the file.
    """
    if media_type(request) != "multipart/form-data":
        raise Problem(
            "unsupported_media_type", f"send the file as multipart/form-data, in the field {field!r}"
        )
    _, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if not boundary:
        raise Problem("malformed_request", "the multipart body names no boundary")
    request.state.body_limit = max_bytes + _ENVELOPE
    with files.write(target) as file:
        form = _Form(field, file, max_bytes, too_large)
        try:
            parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
            async for chunk in _patiently(request, patience):
                if chunk:
                    await anyio.to_thread.run_sync(parser.write, chunk)
            parser.finalize()
        except FormParserError as error:
            raise Problem("malformed_request", "the multipart body is damaged") from error
    if not form.complete:
        raise Problem("malformed_request", "the multipart body ends too early")
    if not form.found:
        raise Problem("invalid_request", f"{field}: a file is wanted (curl: -F {field}=@FILE)")
    return Saved(form.fields, file_name(form.name), form.size, form.hash.digest())


def form(field: str, options: type[Input]) -> dict[str, Any]:
    """`openapi_extra` of a route that takes the file `field` and the fields of `options` beside it."""
    fields = options.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
    schema = {
        "type": "object",
        "required": [field],
        "properties": {field: {"type": "string", "format": "binary"}} | fields,
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def checked(options: type[OptionsT], saved: Saved) -> OptionsT:
    """The fields of an upload as `options`. Raises Problem 422."""
    try:
        return options.model_validate({key: text for key, text in saved.fields.items() if text != ""})
    except ValidationError as error:
        raise invalid(error.errors(include_input=False, include_context=False, include_url=False)) from None


async def _patiently(request: Request, patience: float) -> AsyncIterator[bytes]:
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout(patience):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Problem(
                "body_timeout",
                f"nothing arrived for {patience:g} seconds",
                headers={"Connection": "close"},
            ) from None
        yield chunk


class _Form:
    """Takes what the parser finds: text fields into memory, the one file to disk."""

    def __init__(self, field: str, file: IO[bytes], max_bytes: int, too_large: str) -> None:
        self.fields: dict[str, str] = {}
        self.name: str | None = None
        self.size = 0
        self.found = self.complete = False
        self.hash = hashlib.sha256()
        self._field, self._file, self._max_bytes, self._too_large = field, file, max_bytes, too_large
        self._header = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._current: str | None = None
        self._text = b""

    def callbacks(self) -> dict[str, Any]:
        """For the parser."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_headers_finished": self._start,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._headers, self._current, self._text = {}, None, b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _start(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        file = options.get(b"filename")
        if file is None:
            if name == self._field:
                raise Problem("invalid_request", f"{name}: send a file, not text (curl: -F {name}=@FILE)")
            if name in self.fields:
                raise Problem("invalid_request", "a field was sent twice")
            if len(self.fields) >= 32:
                raise Problem("invalid_request", "too many fields")
            self._current = name
            return
        if name != self._field:
            raise Problem("invalid_request", f"the file belongs into the field {self._field!r}")
        if self.found:
            raise Problem("invalid_request", f"{name}: one file at a time")
        self.found, self.name = True, file.decode("utf-8", "replace")

    def _data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        if self._current is not None:
            self._text += piece
            if len(self._text) > _FIELD:
                raise Problem("invalid_request", "a field is too long")
            return
        self.size += len(piece)
        if self.size > self._max_bytes:
            raise Problem(
                self._too_large,
                f"the file may have at most {self._max_bytes:,} bytes",
                headers={"Connection": "close"},
            )
        self.hash.update(piece)
        self._file.write(piece)

    def _end(self) -> None:
        if self._current is not None:
            self.fields[self._current] = self._text.decode("utf-8", "replace")

    def _finish(self) -> None:
        self.complete = True
