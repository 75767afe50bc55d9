"""Request bodies: JSON or multipart, read within limits, in memory only, and checked against one schema."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from sphereid.api.json_budget import check_json
from sphereid.api.problems import Problem, invalid
from sphereid.api.schemas import ImageInput, Input
from sphereid.settings import Limits

OptionsT = TypeVar("OptionsT", bound=Input)
ModelT = TypeVar("ModelT", bound=BaseModel)
_ENVELOPE: Final = 64 * 1024
"""Bytes that fields, part headers and boundaries may take beside the images."""
_AT_ONCE: Final = 64 * 1024
"""Bytes of a JSON document up to which it is parsed on the event loop: a thread would take longer."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An image file as it was sent. name: the client's file name without folders, if any."""

    data: bytes
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Parsed(Generic[OptionsT]):
    """A body that carries images: its options and its files, in the order of the request."""

    options: OptionsT
    images: tuple[Upload, ...]

    def digest(self) -> bytes:
        """Names the content whatever form it was sent in, multipart boundaries and file names aside."""
        whole = hashlib.sha256(self.options.model_dump_json().encode())
        for image in self.images:
            whole.update(hashlib.sha256(image.data).digest())
        return whole.digest()


class _InMemoryParser(MultiPartParser):
    spool_max_size = 1 << 62  # photographs of people are not left in temporary files


async def read_json(request: Request, model: type[ModelT], limits: Limits) -> ModelT:
    """The body as `model`. Raises Problem: 408, 413, 415 or 422."""
    if media_type(request) != "application/json":
        raise Problem("unsupported_media_type", "send the body as application/json")
    return await _document(model, await _whole(request, limits.body_timeout))


async def read_images(
    request: Request,
    options: type[OptionsT],
    whole: type[BaseModel],
    limits: Limits,
    *,
    field: str = "image",
    least: int = 1,
    most: int = 1,
) -> Parsed[OptionsT]:
    """Images and options from multipart/form-data (files named `field`) or JSON (`whole`).

    least, most: how many images are wanted. Raises Problem: 400, 408, 413, 415 or 422.
    """
    kind = media_type(request)
    if kind == "multipart/form-data":
        allowed = min(most * limits.image_bytes, max(limits.request_bytes, limits.image_bytes))
        request.state.body_limit = allowed + _ENVELOPE
        form = await _multipart(request, most, limits.body_timeout)
        return await _from_form(form, options, field, least, most)
    if kind == "application/json":
        encoded = most * (limits.image_bytes * 4 // 3 + 4)
        request.state.body_limit = min(encoded, max(limits.request_bytes, encoded // most)) + _ENVELOPE
        document = await _document(whole, await _whole(request, limits.body_timeout))
        images = _images_of(document)
        if len(images) > most:
            raise Problem("invalid_request", f"{field}: at most {most}, there are {len(images)}")
        chosen = document.model_dump(include=set(options.model_fields))
        return Parsed(options.model_validate(chosen), images)
    raise Problem("unsupported_media_type", "send the image as multipart/form-data or application/json")


def media_type(request: Request) -> str:
    """The type that the request says its body has, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _whole(request: Request, seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            return await request.body()
    except TimeoutError:
        raise _too_slow(seconds) from None


def _too_slow(seconds: float) -> Problem:
    return Problem(
        "body_timeout", f"the body must arrive within {seconds:g} seconds", headers={"Connection": "close"}
    )


async def _document(model: type[ModelT], body: bytes) -> ModelT:
    """The body as `model`, off the event loop where it is long. Raises Problem: 413 or 422."""
    if len(body) <= _AT_ONCE:
        return _checked_json(model, body)
    return await asyncio.to_thread(_checked_json, model, body)


def _checked_json(model: type[ModelT], body: bytes) -> ModelT:
    check_json(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error.errors(include_input=False, include_context=False, include_url=False)) from None


def _images_of(document: BaseModel) -> tuple[Upload, ...]:
    given: ImageInput | list[ImageInput] = getattr(document, "image", None) or getattr(document, "images", [])
    return tuple(Upload(image.base64) for image in (given if isinstance(given, list) else [given]))


async def _multipart(request: Request, most: int, seconds: float) -> FormData:
    async def chunks() -> AsyncGenerator[bytes, None]:
        async for chunk in request.stream():
            yield chunk

    try:
        async with asyncio.timeout(seconds):
            parser = _InMemoryParser(
                request.headers, chunks(), max_files=most + 1, max_fields=32, max_part_size=_ENVELOPE
            )
            return await parser.parse()
    except TimeoutError:
        raise _too_slow(seconds) from None
    except (Problem, ClientDisconnect):
        raise
    except MultiPartException as error:
        raise Problem("malformed_request", error.message) from None
    except Exception as error:  # the parser lets errors of headers and boundaries through as they come
        raise Problem("malformed_request", "the multipart body is damaged") from error


async def _from_form(
    form: FormData, options: type[OptionsT], field: str, least: int, most: int
) -> Parsed[OptionsT]:
    fields: dict[str, Any] = {}
    images: list[Upload] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != field:
                raise Problem("invalid_request", f"the image belongs into the field {field!r}")
            images.append(Upload(await value.read(), file_name(value.filename)))
        elif name == field:
            raise Problem("invalid_request", f"{field}: send a file, not text (curl: -F {field}=@photo.jpg)")
        elif name in fields:
            raise Problem("invalid_request", "a field was sent twice")
        elif value != "":
            fields[name] = value
    if not least <= len(images) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise Problem("invalid_request", f"{field}: {wanted} wanted, there {_are(len(images))} {len(images)}")
    try:
        return Parsed(options.model_validate(fields), tuple(images))
    except ValidationError as error:
        raise invalid(error.errors(include_input=False, include_context=False, include_url=False)) from None


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def file_name(name: str | None) -> str | None:
    """The last part of a path from any system, without what a terminal or log would act on."""
    plain = "".join(c for c in (name or "").replace("\\", "/").rsplit("/", 1)[-1] if c.isprintable())
    return plain.encode("utf-8", "ignore").decode()[:200] or None


def body_schema(
    options: type[Input], whole: type[Input], *, field: str = "image", several: bool = False
) -> dict[str, Any]:
    """The `requestBody` of a route that reads images, for the OpenAPI document."""
    binary = {"type": "string", "format": "binary"}
    form = options.model_json_schema(ref_template="#/components/schemas/{model}")
    properties = {field: {"type": "array", "items": binary} if several else binary} | form["properties"]
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {"type": "object", "required": [field], "properties": properties}
                },
                "application/json": {"schema": {"$ref": f"#/components/schemas/{whole.__name__}"}},
            },
        }
    }


def json_schema(model: type[Input]) -> dict[str, Any]:
    """The `requestBody` of a route that reads JSON."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}
