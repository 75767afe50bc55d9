"""Get embeddings."""

from fastapi import APIRouter, Response

from sphereid.api.body import body_schema, read_images
from sphereid.api.dependencies import ADMITTED, ContextDep, PartsDep, problems
from sphereid.api.idempotency import answer
from sphereid.api.middleware.admission import until_gone
from sphereid.api.schemas import EmbedAnswer, EmbedRequest, FindOptions

router = APIRouter(prefix="/v1/embed", tags=["faces"], dependencies=[ADMITTED])


@router.post(
    "",
    summary="Find the faces of an image and embed them",
    response_model=EmbedAnswer,
    responses=problems(400, 408, 413, 415, 422),
    openapi_extra=body_schema(FindOptions, EmbedRequest),
)
async def embed(parts: PartsDep, context: ContextDep) -> Response:
    """As detection, with an embedding of L2 norm 1 a face. The cosine of two is their similarity, as long as
    both were made under the same contract."""
    body = await read_images(context.request, FindOptions, EmbedRequest, context.limits)
    return answer(
        await until_gone(context.request, parts.recognition.embed(body, context.id, context.timings))
    )
