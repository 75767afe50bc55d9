"""Find faces."""

from fastapi import APIRouter, Response

from sphereid.api.body import body_schema, read_images
from sphereid.api.dependencies import ADMITTED, ContextDep, PartsDep, problems
from sphereid.api.idempotency import answer
from sphereid.api.middleware.admission import until_gone
from sphereid.api.schemas import DetectAnswer, DetectRequest, FindOptions

router = APIRouter(prefix="/v1/detect", tags=["faces"], dependencies=[ADMITTED])


@router.post(
    "",
    summary="Find the faces of an image",
    response_model=DetectAnswer,
    responses=problems(400, 408, 413, 415, 422),
    openapi_extra=body_schema(FindOptions, DetectRequest),
)
async def detect(parts: PartsDep, context: ContextDep) -> Response:
    """Boxes, landmarks, scores and quality of every face, largest first; no face gives an empty list."""
    body = await read_images(context.request, FindOptions, DetectRequest, context.limits)
    return answer(
        await until_gone(context.request, parts.recognition.detect(body, context.id, context.timings))
    )
