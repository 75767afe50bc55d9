"""The inbox: faces that nobody was named for, to be named or discarded."""

from functools import partial

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Response

from sphereid.api import views
from sphereid.api.body import json_schema, read_json
from sphereid.api.dependencies import ContextDep, FaceId, GalleryId, OnceDep, Parts, PartsDep, problems
from sphereid.api.schemas import unknowns as u
from sphereid.faces.crops import picture
from sphereid.gallery.unknowns import Cluster, InboxRules, KeptFace

router = APIRouter(prefix="/v1/galleries/{gallery}/unknowns", tags=["unknowns"])


@router.get("", summary="List the unknown faces by person", responses=problems(404, 422))
async def list_unknowns(gallery: GalleryId, parts: PartsDep) -> u.Inbox:
    """Faces that were decided `unknown`, where the gallery keeps them, put together by the gallery's own
    threshold, with whom each person resembles most. The largest group comes first."""
    return await anyio.to_thread.run_sync(_inbox, parts, gallery)


@router.patch(
    "",
    summary="Say what is kept of unknown faces",
    response_model=u.Inbox,
    responses=problems(404, 408, 409, 413, 415, 422),
    openapi_extra=json_schema(u.InboxPatch),
)
async def update_inbox(gallery: GalleryId, parts: PartsDep, context: ContextDep, once: OnceDep) -> Response:
    """Nothing is kept unless `keep` is true. What is beyond the new bounds is deleted at once."""
    body = await read_json(context.request, u.InboxPatch, context.limits)
    changes = {name: getattr(body, name) for name in body.model_fields_set}

    def change() -> u.Inbox:
        parts.gallery.unknowns.set_rules(gallery, **changes)
        return _inbox(parts, gallery)

    content = body.model_dump_json(exclude_unset=True).encode()
    return await once(content, partial(anyio.to_thread.run_sync, change))


@router.delete(
    "",
    summary="Discard all unknown faces",
    response_model=u.UnknownsReceipt,
    responses=problems(404, 409, 422),
)
async def empty_inbox(gallery: GalleryId, parts: PartsDep, once: OnceDep) -> Response:
    """Deletes every face of the inbox; what comes later is kept as before."""

    def discard() -> u.UnknownsReceipt:
        faces, scrubbed = parts.gallery.unknowns.discard(gallery)
        return u.UnknownsReceipt(faces=faces, scrubbed=scrubbed)

    return await once(b"", partial(anyio.to_thread.run_sync, discard))


@router.post(
    "/name",
    summary="Name unknown faces",
    status_code=201,
    response_model=u.UnknownsNamed,
    responses=problems(404, 408, 409, 413, 415, 422),
    openapi_extra=json_schema(u.UnknownsName),
)
async def name_unknowns(gallery: GalleryId, parts: PartsDep, context: ContextDep, once: OnceDep) -> Response:
    """Enrolls the faces for an identity, which is made where it is missing, and takes them out of the inbox.
    Faces are named one by one, so that nobody is enrolled whom the caller did not see."""
    body = await read_json(context.request, u.UnknownsName, context.limits)

    def name() -> u.UnknownsNamed:
        enrolled = parts.gallery.unknowns.name(gallery, body.faces, body.identity, body.name)
        known = parts.gallery.identities(gallery, [body.identity])
        parts.metrics.enrolled.inc(len(enrolled.faces))
        return u.UnknownsNamed(
            identity=views.identity_ref(body.identity, known),
            faces=len(enrolled.faces),
            revision=enrolled.revision,
        )

    return await once(body.model_dump_json().encode(), partial(anyio.to_thread.run_sync, name), 201)


@router.post(
    "/discard",
    summary="Discard unknown faces",
    response_model=u.UnknownsReceipt,
    responses=problems(404, 408, 409, 413, 415, 422),
    openapi_extra=json_schema(u.UnknownsDiscard),
)
async def discard_unknowns(
    gallery: GalleryId, parts: PartsDep, context: ContextDep, once: OnceDep
) -> Response:
    """Deletes the faces, their pictures and their embeddings."""
    body = await read_json(context.request, u.UnknownsDiscard, context.limits)

    def discard() -> u.UnknownsReceipt:
        faces, scrubbed = parts.gallery.unknowns.discard(gallery, body.faces)
        return u.UnknownsReceipt(faces=faces, scrubbed=scrubbed)

    return await once(body.model_dump_json().encode(), partial(anyio.to_thread.run_sync, discard))


@router.get(
    "/{face}/picture",
    summary="Show an unknown face",
    response_class=Response,
    responses=problems(404, 422) | {200: {"description": "The face.", "content": {"image/jpeg": {}}}},
)
async def get_picture(gallery: GalleryId, face: FaceId, parts: PartsDep) -> Response:
    """The face with a little of its surroundings, as a JPEG."""
    kept = await anyio.to_thread.run_sync(parts.gallery.unknowns.picture, gallery, face)
    return Response(picture(kept), media_type="image/jpeg", headers={"Cache-Control": "no-store"})


def _inbox(parts: Parts, gallery: str) -> u.Inbox:
    service = parts.gallery
    rules: InboxRules = service.unknowns.rules(gallery)
    clusters = service.unknowns.clusters(gallery)
    return u.Inbox(
        keep=rules.keep,
        most=rules.most,
        days=rules.days,
        faces=sum(len(cluster.faces) for cluster in clusters),
        threshold=views.threshold(clusters[0].threshold if clusters else service.threshold(gallery)),
        clusters=[
            _shown(cluster, nearest)
            for cluster, nearest in zip(clusters, _nearest(parts, gallery, clusters), strict=True)
        ],
    )


def _nearest(parts: Parts, gallery: str, clusters: list[Cluster]) -> list[u.Nearest | None]:
    """Whom each cluster resembles most; None where nobody can be compared with it."""
    service = parts.gallery
    contract = service.get_gallery(gallery).contract
    mine = [i for i, cluster in enumerate(clusters) if cluster.contract == contract]
    found: list[u.Nearest | None] = [None] * len(clusters)
    if not mine or contract is None:
        return found
    centers = np.stack([clusters[i].center for i in mine])
    decisions, _ = service.identify(gallery, centers, contract, k=1)
    ids = {d.candidates[0].identity_id for d in decisions if d.candidates}
    known = service.identities(gallery, sorted(ids))
    for i, decision in zip(mine, decisions, strict=True):
        if decision.candidates:
            best = decision.candidates[0]
            found[i] = u.Nearest(
                identity=views.identity_ref(best.identity_id, known), similarity=round(best.similarity, 6)
            )
    return found


def _shown(cluster: Cluster, nearest: u.Nearest | None) -> u.UnknownCluster:
    times = [face.seen_at for face in cluster.faces]
    return u.UnknownCluster(
        id=cluster.faces[0].id,
        faces=[_face(face) for face in cluster.faces],
        first_seen_at=min(times),
        last_seen_at=max(times),
        nearest=nearest,
    )


def _face(face: KeptFace) -> u.UnknownFace:
    return u.UnknownFace(
        id=face.id,
        quality=round(face.quality, 4),
        detection_score=round(face.detection_score, 4),
        source=face.source,
        seen_at=face.seen_at,
    )
