"""What the routes get handed: the parts of the running service and the context of the request."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Query
from starlette.requests import Request

from sphereid.api.enrolling import Enrolling
from sphereid.api.idempotency import KeyedLocks, Once
from sphereid.api.looking import Timings
from sphereid.api.metrics import Metrics
from sphereid.api.middleware.admission import Admission
from sphereid.api.recognition import Recognition
from sphereid.api.schemas import ProblemDocument, Slug
from sphereid.faces.manifest import Manifest
from sphereid.gallery.service import GalleryService
from sphereid.jobs.runner import JobRunner
from sphereid.monitors.runner import MonitorRunner
from sphereid.recognition.models import Models
from sphereid.settings import Limits, Settings
from sphereid.video.live import Live


@dataclass(frozen=True, slots=True)
class Parts:
    """The running service."""

    settings: Settings
    recognition: Recognition
    enrolling: Enrolling
    gallery: GalleryService
    serving: Models
    metrics: Metrics
    admission: Admission
    active_model: str
    models: dict[str, Manifest]
    provider: str
    jobs: JobRunner
    live: Live
    monitors: MonitorRunner
    locks: KeyedLocks = field(default_factory=KeyedLocks)


@dataclass(frozen=True, slots=True)
class Context:
    """One request. timings: milliseconds by stage, which also go into the `Server-Timing` header."""

    request: Request
    id: str
    timings: Timings
    limits: Limits


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


# FastAPI runs a dependency that is not `async` in a worker thread, and looks at each one's parameters for
# every request: both cost more than these do.


async def _parts_dependency(request: Request) -> Parts:
    return _parts(request)


async def _context(request: Request) -> Context:
    state = request.state
    return Context(request, state.request_id, state.timings, _parts(request).settings.limits)


async def _admitted(request: Request) -> AsyncIterator[None]:
    async with _parts(request).admission.enter():
        yield


async def _once(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(description="Makes a write repeatable: same key and request, same answer, one effect."),
    ] = None,
) -> Once:
    parts = _parts(request)
    return Once(f"{request.method} {request.url.path}", idempotency_key, parts.gallery, parts.locks)


PartsDep = Annotated[Parts, Depends(_parts_dependency)]
ContextDep = Annotated[Context, Depends(_context)]
OnceDep = Annotated[Once, Depends(_once)]
ADMITTED = Depends(_admitted)
"""For routes that run the pipeline: one of a bounded number of places, taken before the body is read."""

GalleryId = Annotated[Slug, Path(description="The gallery's id.", examples=["default"])]
IdentityId = Annotated[Slug, Path(description="The identity's id.", examples=["alice"])]
FaceId = Annotated[Slug, Path(description="The face's id.")]
Cursor = Annotated[
    str | None,
    Query(max_length=500, description="`next_cursor` of the page before; none for the first page."),
]
PageSize = Annotated[int, Query(ge=1, le=500, description="Most items on the page.")]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: the problems that it may answer."""
    text = {
        400: "The body cannot be read.",
        401: "A valid API key is needed.",
        403: "The service's settings do not allow it.",
        404: "There is no such thing.",
        405: "This method is not available here.",
        408: "The body took too long to arrive.",
        409: "It conflicts with what is stored.",
        413: "The body or the image is too large.",
        415: "The body or the image is of a wrong type.",
        422: "The request is not valid, or the image does not show what is needed.",
        500: "Something went wrong here.",
        503: "Too much work is waiting; try again after `Retry-After` seconds.",
    }
    return {
        status: {
            "description": text[status],
            "content": {
                "application/problem+json": {
                    "schema": {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}
                }
            },
        }
        for status in sorted({401, 500, 503, *statuses})
    }
