"""Whole galleries, as jobs: import, export, evaluation, another model."""

from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Response

from sphereid.api.body import json_schema, read_json
from sphereid.api.dependencies import ContextDep, GalleryId, OnceDep, Parts, PartsDep, problems
from sphereid.api.problems import Problem
from sphereid.api.schemas.bulk import ImportOptions, ReembedRequest
from sphereid.api.schemas.jobs import Job, shown
from sphereid.api.upload import checked, form, save_upload
from sphereid.bulk.reembedding import check_crops
from sphereid.bulk.sources import open_source
from sphereid.gallery import transfer
from sphereid.jobs import galleries as g
from sphereid.jobs import imports
from sphereid.jobs.video import UPLOAD

router = APIRouter(prefix="/v1/galleries/{gallery}", tags=["whole galleries"])


@router.post(
    "/import",
    summary="Import many people",
    status_code=202,
    response_model=Job,
    responses=problems(400, 404, 408, 409, 413, 415, 422),
    openapi_extra=form("file", ImportOptions),
)
async def import_gallery(gallery: GalleryId, parts: PartsDep, context: ContextDep, once: OnceDep) -> Response:
    """Upload a tar or zip archive of photographs, or a Parquet file that an export wrote, in the field
    `file`; the answer is a job.

    In an archive the outermost folder names the identity (`alice/1.jpg`; a loose `alice.jpg` is Alice's
    too), or one CSV at the top does, with the columns `identity`, `file` and, if wanted, `name`, `metadata`
    and others. The job's artifacts `report` (JSON) and `report_csv` say of every file what became of it, and
    why it was left out. A job that the service's end interrupted goes on; a photograph that is enrolled
    already is not enrolled twice.
    """
    files = parts.jobs.files
    job_id, folder = await anyio.to_thread.run_sync(parts.jobs.reserve)
    submitted = False
    try:
        await anyio.to_thread.run_sync(parts.gallery.get_gallery, gallery)
        saved = await save_upload(
            context.request,
            folder / UPLOAD,
            field="file",
            max_bytes=context.limits.import_bytes,
            patience=context.limits.body_timeout,
            files=files,
            too_large="file_too_large",
        )
        options = checked(ImportOptions, saved)

        def check() -> None:
            if imports.is_parquet(folder / UPLOAD, files):
                with files.read(folder / UPLOAD) as file:
                    transfer.read_header(file)
            else:
                with open_source(folder / UPLOAD, archive=True, files=files):
                    pass

        await anyio.to_thread.run_sync(check)

        def submit() -> Job:
            nonlocal submitted
            score = options.min_detection_score
            params: dict[str, Any] = options.model_dump(exclude={"min_detection_score"}) | {
                "gallery": gallery,
                "min_score": parts.settings.detection.min_score if score is None else score,
            }
            job = parts.jobs.submit(job_id, imports.KIND, saved.name or gallery, params)
            submitted = True
            return shown(job)

        content = saved.digest + options.model_dump_json().encode()
        return await once(content, lambda: anyio.to_thread.run_sync(submit), 202)
    finally:
        if not submitted:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(parts.jobs.discard, job_id)


@router.post(
    "/export",
    summary="Export a gallery",
    status_code=202,
    response_model=Job,
    responses=problems(404, 409, 422),
)
async def export_gallery(gallery: GalleryId, parts: PartsDep, once: OnceDep) -> Response:
    """The answer is a job; its artifact `gallery` is a Parquet file of all identities and faces with their
    embeddings, which an import reads back bit for bit. Whoever has it can find these people elsewhere: keep
    it as you keep the database."""
    return await once(b"", lambda: anyio.to_thread.run_sync(partial(_begin, parts, gallery, g.EXPORT)), 202)


@router.post(
    "/evaluation",
    summary="Measure a gallery on itself",
    status_code=202,
    response_model=Job,
    responses=problems(404, 409, 422),
)
async def evaluate_gallery(gallery: GalleryId, parts: PartsDep, once: OnceDep) -> Response:
    """Leave-one-out over the gallery's own faces: how many people it would miss (FNIR) and how many strangers
    it would name (FPIR) at the threshold in force and at others, the similarity histograms, a suggested
    threshold, and faces that look like somebody else's. The answer is a job with the artifacts `evaluation`
    (JSON) and `chart` (SVG); `notes` say what the gallery is too small for."""
    return await once(
        b"", lambda: anyio.to_thread.run_sync(partial(_begin, parts, gallery, g.EVALUATION)), 202
    )


@router.post(
    "/reembed",
    summary="Change a gallery's model",
    status_code=202,
    response_model=Job,
    responses=problems(404, 408, 409, 413, 415, 422),
    openapi_extra=json_schema(ReembedRequest),
)
async def reembed_gallery(
    gallery: GalleryId, parts: PartsDep, context: ContextDep, once: OnceDep
) -> Response:
    """Embeds the gallery's crops with another model while the old one serves, compares both on the gallery's
    own pairs, and lets the new embeddings take over in one write: what is enrolled meanwhile is taken along.
    The gallery must have kept crops (`keep_crops`) of all its faces. The answer is a job with the artifact
    `comparison`. From then on this gallery is served by the new model, and others by their own."""
    body = await read_json(context.request, ReembedRequest, context.limits)

    def submit() -> Job:
        if body.model not in parts.models:
            known = ", ".join(sorted(parts.models))
            raise Problem("model_not_found", f"there is no model {body.model!r} (there: {known})")
        parts.gallery.get_gallery(gallery)
        check_crops(parts.gallery, gallery)
        return _begin(parts, gallery, g.REEMBED, **body.model_dump())

    return await once(body.model_dump_json().encode(), lambda: anyio.to_thread.run_sync(submit), 202)


def _begin(parts: Parts, gallery: str, kind: str, **params: Any) -> Job:
    """Submit a job about a gallery that has no upload."""
    parts.gallery.get_gallery(gallery)
    job_id, _ = parts.jobs.reserve()
    return shown(parts.jobs.submit(job_id, kind, gallery, {"gallery": gallery, **params}))
