"""Faces of an identity: enrollment and what was enrolled."""

import anyio.to_thread
from fastapi import APIRouter, Response

from sphereid.api import schemas as s
from sphereid.api import views
from sphereid.api.body import body_schema, read_images
from sphereid.api.dependencies import (
    ADMITTED,
    ContextDep,
    Cursor,
    FaceId,
    GalleryId,
    IdentityId,
    OnceDep,
    PageSize,
    PartsDep,
    problems,
)
from sphereid.api.idempotency import threaded
from sphereid.api.middleware.admission import until_gone
from sphereid.gallery.errors import NotFoundError
from sphereid.gallery.types import DeleteReceipt
from sphereid.gallery.writes import Keyed
from sphereid.inference.models import Model

router = APIRouter(prefix="/v1/galleries/{gallery}/identities/{identity}/faces", tags=["faces of identities"])


@router.get("", summary="List the faces of an identity", responses=problems(404, 422))
async def list_faces(
    gallery: GalleryId, identity: IdentityId, parts: PartsDep, cursor: Cursor = None, limit: PageSize = 50
) -> s.FacePage:
    """A page of the faces that were enrolled for an identity."""

    def read() -> s.FacePage:
        page = parts.gallery.list_faces(gallery, identity, cursor=cursor, limit=limit)
        return s.FacePage(items=[views.stored_face(each) for each in page.items], next_cursor=page.cursor)

    return await anyio.to_thread.run_sync(read)


@router.post(
    "",
    summary="Enroll faces",
    status_code=201,
    response_model=s.EnrollAnswer,
    responses=problems(400, 404, 408, 409, 413, 415, 422),
    openapi_extra=body_schema(s.EnrollOptions, s.EnrollRequest, field="images", several=True),
    dependencies=[ADMITTED],
)
async def enroll(
    gallery: GalleryId, identity: IdentityId, parts: PartsDep, context: ContextDep, once: OnceDep
) -> Response:
    """Enrolls one face an image, from one or several files named `images`.

    Images without a face, with several (unless `face=largest`) or with a face that fails the quality gate are
    listed under `rejected`; when none is left, the answer is 422 and nothing is stored. Faces that resemble
    somebody enrolled are listed under `duplicates`. The identity must exist, unless `create=true`.
    """
    body = await read_images(
        context.request,
        s.EnrollOptions,
        s.EnrollRequest,
        context.limits,
        field="images",
        most=context.limits.images_per_request,
    )
    enrolling = parts.enrolling

    async def write(keyed: Keyed[s.EnrollAnswer] | None) -> s.EnrollAnswer:
        await anyio.to_thread.run_sync(known)

        async def attempt(model: Model) -> s.EnrollAnswer:
            rules = parts.gallery.get_gallery(gallery)
            prepared = await until_gone(
                context.request,
                enrolling.prepare(model, body.images, body.options, context.timings, rules),
            )
            return await enrolling.enroll(
                model, gallery, identity, prepared, body.options, context.id, context.timings, keyed
            )

        return await enrolling.with_model_of(gallery, attempt)

    def known() -> None:
        """A wrong id is refused before any image is looked at."""
        try:
            parts.gallery.get_identity(gallery, identity)
        except NotFoundError as error:
            if error.code != "identity_not_found" or not body.options.create:
                raise

    return await once.stored(body.digest(), write, lambda shown: shown, 201)


@router.get("/{face}", summary="Show a face", responses=problems(404, 422))
async def get_face(gallery: GalleryId, identity: IdentityId, face: FaceId, parts: PartsDep) -> s.StoredFace:
    """What is kept of an enrolled face; its embedding stays inside."""
    return views.stored_face(await anyio.to_thread.run_sync(parts.gallery.get_face, gallery, identity, face))


@router.delete(
    "/{face}", summary="Delete a face", response_model=s.Receipt, responses=problems(404, 409, 422)
)
async def delete_face(
    gallery: GalleryId, identity: IdentityId, face: FaceId, parts: PartsDep, once: OnceDep
) -> Response:
    """Removes a face from the database, the index and the snapshot."""

    def delete(keyed: Keyed[DeleteReceipt] | None) -> DeleteReceipt:
        return parts.gallery.delete_face(gallery, identity, face, keyed=keyed)

    return await once.stored(b"", threaded(delete), views.receipt)
