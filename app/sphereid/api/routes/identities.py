"""Identities: the people of a gallery."""

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Response

from sphereid.api import schemas as s
from sphereid.api import views
from sphereid.api.body import json_schema, read_json
from sphereid.api.dependencies import (
    ContextDep,
    Cursor,
    GalleryId,
    IdentityId,
    OnceDep,
    PageSize,
    PartsDep,
    problems,
)
from sphereid.api.idempotency import threaded
from sphereid.gallery.types import DeleteReceipt, Identity
from sphereid.gallery.writes import Keyed

router = APIRouter(prefix="/v1/galleries/{gallery}/identities", tags=["identities"])


@router.get("", summary="List the identities", responses=problems(404, 422))
async def list_identities(
    gallery: GalleryId,
    parts: PartsDep,
    cursor: Cursor = None,
    limit: PageSize = 50,
    name: Annotated[str | None, Query(max_length=200, description="Only names that contain this.")] = None,
    filter: Annotated[
        str | None,
        Query(
            pattern=s.FILTER_PATTERN,
            max_length=2000,
            description="Only identities whose metadata has these members: `department:press`, several with "
            "commas between them. Values are compared as text.",
        ),
    ] = None,
) -> s.IdentityPage:
    """A page of a gallery's identities, in the order of their creation."""

    where = None if filter is None else s.filter_of(filter)

    def read() -> s.IdentityPage:
        page = parts.gallery.list_identities(gallery, cursor=cursor, limit=limit, name=name, where=where)
        return s.IdentityPage(items=[views.identity(each) for each in page.items], next_cursor=page.cursor)

    return await anyio.to_thread.run_sync(read)


@router.post(
    "",
    summary="Make an identity",
    status_code=201,
    response_model=s.Identity,
    responses=problems(404, 408, 409, 413, 415, 422),
    openapi_extra=json_schema(s.IdentityCreate),
)
async def create_identity(
    gallery: GalleryId, parts: PartsDep, context: ContextDep, once: OnceDep
) -> Response:
    """A new identity without faces; it can be named once it has some."""
    body = await read_json(context.request, s.IdentityCreate, context.limits)

    def make(keyed: Keyed[Identity] | None) -> Identity:
        return parts.gallery.create_identity(gallery, body.id, body.name, body.metadata, keyed=keyed)

    content = body.model_dump_json().encode()
    return await once.stored(content, threaded(make), views.identity, 201)


@router.get("/{identity}", summary="Show an identity", responses=problems(404, 422))
async def get_identity(gallery: GalleryId, identity: IdentityId, parts: PartsDep) -> s.Identity:
    """The identity and how many faces it has."""
    return views.identity(await anyio.to_thread.run_sync(parts.gallery.get_identity, gallery, identity))


@router.patch(
    "/{identity}",
    summary="Change an identity",
    response_model=s.Identity,
    responses=problems(404, 408, 409, 413, 415, 422),
    openapi_extra=json_schema(s.IdentityPatch),
)
async def update_identity(
    gallery: GalleryId, identity: IdentityId, parts: PartsDep, context: ContextDep, once: OnceDep
) -> Response:
    """Members that are left out stay as they are; `metadata` is replaced as a whole."""
    body = await read_json(context.request, s.IdentityPatch, context.limits)
    changes: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}

    def change(keyed: Keyed[Identity] | None) -> Identity:
        return parts.gallery.update_identity(gallery, identity, **changes, keyed=keyed)

    content = body.model_dump_json(exclude_unset=True).encode()
    return await once.stored(content, threaded(change), views.identity)


@router.delete(
    "/{identity}", summary="Delete an identity", response_model=s.Receipt, responses=problems(404, 409, 422)
)
async def delete_identity(
    gallery: GalleryId, identity: IdentityId, parts: PartsDep, once: OnceDep
) -> Response:
    """Removes the identity and all its faces from the database, the index and the snapshot."""

    def delete(keyed: Keyed[DeleteReceipt] | None) -> DeleteReceipt:
        return parts.gallery.delete_identity(gallery, identity, keyed=keyed)

    return await once.stored(b"", threaded(delete), views.receipt)


@router.post(
    "/{identity}/merge",
    summary="Merge two identities",
    response_model=s.Identity,
    responses=problems(404, 408, 409, 413, 415, 422),
    openapi_extra=json_schema(s.IdentityMerge),
)
async def merge_identities(
    gallery: GalleryId, identity: IdentityId, parts: PartsDep, context: ContextDep, once: OnceDep
) -> Response:
    """The faces of `source` become this identity's, with their ids; `source` is gone afterwards. The name and
    the metadata of this identity stay."""
    body = await read_json(context.request, s.IdentityMerge, context.limits)

    def merge(keyed: Keyed[Identity] | None) -> Identity:
        return parts.gallery.merge_identities(gallery, identity, body.source, keyed=keyed)

    return await once.stored(body.model_dump_json().encode(), threaded(merge), views.identity)
