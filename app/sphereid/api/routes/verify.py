"""Compare two faces, or a face with an identity."""

from fastapi import APIRouter, Response

from sphereid.api.body import body_schema, read_images
from sphereid.api.dependencies import ADMITTED, ContextDep, GalleryId, IdentityId, PartsDep, problems
from sphereid.api.idempotency import answer
from sphereid.api.middleware.admission import until_gone
from sphereid.api.schemas import (
    VerifyAnswer,
    VerifyIdentityAnswer,
    VerifyIdentityRequest,
    VerifyOptions,
    VerifyRequest,
)

router = APIRouter(tags=["verification"], dependencies=[ADMITTED])


@router.post(
    "/v1/verify",
    summary="Do two images show the same person",
    response_model=VerifyAnswer,
    responses=problems(400, 408, 413, 415, 422),
    openapi_extra=body_schema(VerifyOptions, VerifyRequest, field="images", several=True),
)
async def verify(parts: PartsDep, context: ContextDep) -> Response:
    """Compares the face of two images, sent as two files named `images`. One face an image is wanted; more
    are refused unless `face=largest`."""
    body = await read_images(
        context.request, VerifyOptions, VerifyRequest, context.limits, field="images", least=2, most=2
    )
    return answer(
        await until_gone(context.request, parts.recognition.verify(body, context.id, context.timings))
    )


@router.post(
    "/v1/galleries/{gallery}/identities/{identity}/verify",
    summary="Does an image show this identity",
    response_model=VerifyIdentityAnswer,
    responses=problems(400, 404, 408, 409, 413, 415, 422),
    openapi_extra=body_schema(VerifyOptions, VerifyIdentityRequest),
)
async def verify_identity(
    gallery: GalleryId, identity: IdentityId, parts: PartsDep, context: ContextDep
) -> Response:
    """Compares the face of an image with the faces of one identity."""
    body = await read_images(context.request, VerifyOptions, VerifyIdentityRequest, context.limits)
    return answer(
        await until_gone(
            context.request,
            parts.recognition.verify_identity(gallery, identity, body, context.id, context.timings),
        )
    )
