"""Every error is an RFC 9457 problem document; this file says which code has which status."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sphereid.errors import CodedError
from sphereid.storage.errors import StorageFullError, is_full

MEDIA_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = 1

PROBLEMS: Final[Mapping[str, tuple[int, str]]] = {
    "malformed_request": (400, "The request body cannot be read"),
    "unauthorized": (401, "A valid API key is needed"),
    "cross_site": (403, "Another website may not change anything here"),
    "host_not_allowed": (403, "The service is not called by this name"),
    "source_not_allowed": (403, "Monitors may not open this source"),
    "webhook_not_allowed": (403, "Monitors may not call this address"),
    "not_found": (404, "There is nothing at this address"),
    "gallery_not_found": (404, "No such gallery"),
    "identity_not_found": (404, "No such identity"),
    "face_not_found_in_gallery": (404, "No such face in the gallery"),
    "picture_not_found": (404, "No picture of the face was kept"),
    "unknown_not_found": (404, "No such face in the inbox"),
    "model_not_found": (404, "No such model or card"),
    "monitor_not_found": (404, "No such monitor"),
    "job_not_found": (404, "No such job"),
    "artifact_not_found": (404, "The job made no such thing"),
    "method_not_allowed": (405, "This method is not available here"),
    "body_timeout": (408, "The request body took too long to arrive"),
    "gallery_exists": (409, "The gallery exists already"),
    "identity_exists": (409, "The identity exists already"),
    "monitor_exists": (409, "The monitor exists already"),
    "too_many_monitors": (409, "There are as many monitors as allowed"),
    "gallery_protected": (409, "This gallery cannot be deleted"),
    "idempotency_conflict": (409, "The Idempotency-Key was used for another request"),
    "duplicate_face": (409, "The face is enrolled already"),
    "job_not_finished": (409, "The job has no result"),
    "contract_mismatch": (409, "The gallery was made with another model"),
    "body_too_large": (413, "The request body is too large"),
    "too_many_values": (413, "The document holds too much"),
    "image_too_large": (413, "The image is too large"),
    "video_too_large": (413, "The video is too large"),
    "crops_missing": (409, "The gallery kept no crops of some faces"),
    "file_too_large": (413, "The file is too large"),
    "import_too_large": (413, "The archive unpacks to too much"),
    "unsupported_media_type": (415, "The request body has the wrong type"),
    "image_unsupported": (415, "The file is no image of a known format"),
    "invalid_request": (422, "The request is not valid"),
    "image_empty": (422, "The image is empty"),
    "image_broken": (422, "The image is damaged"),
    "video_empty": (422, "The video is empty"),
    "video_unreadable": (422, "The video cannot be read"),
    "video_without_picture": (422, "The file holds no moving picture"),
    "face_not_found": (422, "No face was found"),
    "multiple_faces": (422, "More than one face was found"),
    "low_quality": (422, "The face is not good enough"),
    "import_unreadable": (422, "The file cannot be imported"),
    "internal_error": (500, "Something went wrong here"),
    "model_error": (500, "The model failed"),
    "too_many_jobs": (503, "Too many jobs are waiting"),
    "overloaded": (503, "Too much work is waiting"),
    "process_lost": (503, "The process that looked at the picture ended"),
    "shutting_down": (503, "The service is shutting down"),
    "storage_error": (503, "The gallery's storage cannot be used"),
    "storage_full": (507, "No room is left for the data"),
}

_HIDDEN: Final[Mapping[str, str]] = {
    "internal_error": "The error was logged under this request id.",
    "model_error": "The error was logged under this request id.",
    "storage_error": "The error was logged under this request id; try again in a moment.",
}
"""Codes whose own text may name paths or hosts; it goes to the log instead."""


class Problem(HTTPException):
    """An error answer in the making. extensions: further members of the problem document."""

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        status, title = PROBLEMS[code]
        super().__init__(status, detail or title, headers)
        self.code = code
        self.extensions = dict(extensions or {})


def problem_of(error: Exception) -> Problem:
    """The problem that an exception of any room becomes; what nobody foresaw is `internal_error`."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, CodedError):
        code = error.code if error.code in PROBLEMS else "internal_error"
        return Problem(code, None if code in _HIDDEN else str(error))
    if isinstance(error, OSError) and is_full(error):
        return problem_of(StorageFullError())
    if isinstance(error, RequestValidationError | ValidationError):
        return invalid(error.errors())
    if isinstance(error, HTTPException):
        known = {400: "malformed_request", 404: "not_found", 405: "method_not_allowed"}
        if error.status_code in known:
            return Problem(known[error.status_code], headers=error.headers)
    return Problem("internal_error")


def invalid(errors: Sequence[Any]) -> Problem:
    """A 422 that says where and what, and repeats nothing of what was sent.

    errors: as pydantic lists them; only `loc` and `type` and the rule's own text get out.
    """
    faults = [{"where": _where(error["loc"]), "what": str(error["msg"])[:300]} for error in errors[:20]]
    detail = "; ".join(f"{fault['where']}: {fault['what']}" for fault in faults[:3])
    return Problem("invalid_request", detail, extensions={"errors": faults})


def _where(location: Sequence[int | str]) -> str:
    return ".".join(str(part)[:64] for part in location) or "body"


def response_of(problem: Problem, request_id: str) -> Response:
    """The problem document as a response."""
    title = PROBLEMS[problem.code][1]
    document = {
        "type": f"urn:sphereid:problem:{problem.code}",
        "title": title,
        "status": problem.status_code,
        "detail": _HIDDEN.get(problem.code, problem.detail),
        "code": problem.code,
        "request_id": request_id,
        **problem.extensions,
    }
    headers = dict(problem.headers or {})
    if problem.status_code in (429, 503):
        headers.setdefault("Retry-After", str(RETRY_SECONDS))
    if problem.status_code == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    body = json.dumps(document, ensure_ascii=True).encode()
    return Response(body, problem.status_code, headers, media_type=MEDIA_TYPE)


async def handle(request: Request, error: Exception) -> Response:
    """The exception handler of the application."""
    return response_of(problem_of(error), request.state.request_id)
