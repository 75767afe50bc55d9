"""Galleries: sets of identities with rules."""

from functools import partial
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Response

from sphereid.api import schemas as s
from sphereid.api import views
from sphereid.api.body import json_schema, read_json
from sphereid.api.dependencies import ContextDep, Cursor, GalleryId, OnceDep, PageSize, PartsDep, problems
from sphereid.api.idempotency import threaded
from sphereid.gallery import types as g
from sphereid.gallery.service import GalleryService
from sphereid.gallery.writes import Keyed

router = APIRouter(prefix="/v1/galleries", tags=["galleries"])


@router.get("", summary="List the galleries", responses=problems(422))
async def list_galleries(parts: PartsDep, cursor: Cursor = None, limit: PageSize = 50) -> s.GalleryPage:
    """A page of galleries, in the order of their ids."""

    def read() -> s.GalleryPage:
        page = parts.gallery.list_galleries(cursor=cursor, limit=limit)
        return s.GalleryPage(
            items=[_shown(parts.gallery, each) for each in page.items], next_cursor=page.cursor
        )

    return await anyio.to_thread.run_sync(read)


@router.post(
    "",
    summary="Make a gallery",
    status_code=201,
    response_model=s.Gallery,
    responses=problems(408, 409, 413, 415, 422),
    openapi_extra=json_schema(s.GalleryCreate),
)
async def create_gallery(parts: PartsDep, context: ContextDep, once: OnceDep) -> Response:
    """A new, empty gallery. It takes the embedding contract of the first face that is enrolled."""
    body = await read_json(context.request, s.GalleryCreate, context.limits)

    def make(keyed: Keyed[g.Gallery] | None) -> g.Gallery:
        promise = g.FpirPolicy(parts.settings.default_fpir)
        rules = g.GalleryRules(
            policy=promise if body.policy is None else views.policy_of(body.policy),
            ambiguity_margin=body.ambiguity_margin,
            template=body.template,
            keep_crops=body.keep_crops,
            quality=body.quality,
        )
        return parts.gallery.create_gallery(body.id, body.name, body.metadata, rules, keyed=keyed)

    content, show = body.model_dump_json().encode(), partial(_shown, parts.gallery)
    return await once.stored(content, threaded(make), show, 201)


@router.get("/{gallery}", summary="Show a gallery", responses=problems(404, 422))
async def get_gallery(gallery: GalleryId, parts: PartsDep) -> s.Gallery:
    """The gallery, its size, its rules and the threshold that they give now."""
    return await anyio.to_thread.run_sync(lambda: _shown(parts.gallery, parts.gallery.get_gallery(gallery)))


@router.patch(
    "/{gallery}",
    summary="Change a gallery",
    response_model=s.Gallery,
    responses=problems(404, 408, 409, 413, 415, 422),
    openapi_extra=json_schema(s.GalleryPatch),
)
async def update_gallery(gallery: GalleryId, parts: PartsDep, context: ContextDep, once: OnceDep) -> Response:
    """Members that are left out stay as they are; `metadata` is replaced as a whole."""
    body = await read_json(context.request, s.GalleryPatch, context.limits)
    changes: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    if body.policy is not None:
        changes["policy"] = views.policy_of(body.policy)

    def change(keyed: Keyed[g.Gallery] | None) -> g.Gallery:
        return parts.gallery.update_gallery(gallery, **changes, keyed=keyed)

    content, show = body.model_dump_json(exclude_unset=True).encode(), partial(_shown, parts.gallery)
    return await once.stored(content, threaded(change), show)


@router.delete(
    "/{gallery}", summary="Delete a gallery", response_model=s.Receipt, responses=problems(404, 409, 422)
)
async def delete_gallery(gallery: GalleryId, parts: PartsDep, once: OnceDep) -> Response:
    """Removes the gallery with everything in it, and says what that was. `default` cannot be deleted."""

    def delete(keyed: Keyed[g.DeleteReceipt] | None) -> g.DeleteReceipt:
        return parts.gallery.delete_gallery(gallery, keyed=keyed)

    return await once.stored(b"", threaded(delete), views.receipt)


def _shown(service: GalleryService, gallery: g.Gallery) -> s.Gallery:
    return views.gallery(gallery, service.threshold_of(gallery))
