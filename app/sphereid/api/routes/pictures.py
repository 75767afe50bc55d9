"""Pictures of enrolled faces, where the gallery keeps them."""

from collections.abc import Callable
from typing import Any, Final

import anyio.to_thread
from fastapi import APIRouter, Response

from sphereid.api.dependencies import FaceId, GalleryId, IdentityId, PartsDep, problems
from sphereid.faces.crops import picture

router = APIRouter(prefix="/v1/galleries/{gallery}/identities/{identity}", tags=["faces of identities"])

ANSWERS: Final[dict[int | str, dict[str, Any]]] = problems(404, 422) | {
    200: {"description": "The face.", "content": {"image/jpeg": {}}}
}


@router.get("/picture", summary="Show an identity's best picture", response_class=Response, responses=ANSWERS)
async def get_portrait(gallery: GalleryId, identity: IdentityId, parts: PartsDep) -> Response:
    """The enrolled face of the highest quality with a little of its surroundings, as a JPEG. Galleries with
    `keep_crops` have pictures of the faces that were enrolled since."""
    return await _jpeg(lambda: parts.gallery.portrait(gallery, identity))


@router.get(
    "/faces/{face}/picture", summary="Show a face's picture", response_class=Response, responses=ANSWERS
)
async def get_picture(gallery: GalleryId, identity: IdentityId, face: FaceId, parts: PartsDep) -> Response:
    """The enrolled face with a little of its surroundings, as a JPEG."""
    return await _jpeg(lambda: parts.gallery.face_picture(gallery, identity, face))


async def _jpeg(read: Callable[[], bytes]) -> Response:
    kept = await anyio.to_thread.run_sync(read)
    return Response(picture(kept), media_type="image/jpeg", headers={"Cache-Control": "no-store"})
