"""Name the faces of an image."""

from fastapi import APIRouter, Response

from sphereid.api.body import body_schema, read_images
from sphereid.api.dependencies import ADMITTED, ContextDep, GalleryId, PartsDep, problems
from sphereid.api.idempotency import answer
from sphereid.api.middleware.admission import until_gone
from sphereid.api.schemas import IdentifyAnswer, IdentifyOptions, IdentifyRequest

router = APIRouter(
    prefix="/v1/galleries/{gallery}/identify", tags=["identification"], dependencies=[ADMITTED]
)


@router.post(
    "",
    summary="Who is on the image",
    response_model=IdentifyAnswer,
    responses=problems(400, 404, 408, 409, 413, 415, 422),
    openapi_extra=body_schema(IdentifyOptions, IdentifyRequest),
)
async def identify(gallery: GalleryId, parts: PartsDep, context: ContextDep) -> Response:
    """A decision for every face: `match`, `unknown`, `ambiguous` or `rejected`, with the similarity, the
    threshold and the nearest candidates. No face gives an empty list."""
    body = await read_images(context.request, IdentifyOptions, IdentifyRequest, context.limits)
    return answer(
        await until_gone(
            context.request, parts.recognition.identify(gallery, body, context.id, context.timings)
        )
    )
