"""Videos in, jobs out."""

from pathlib import Path

import anyio.to_thread
from fastapi import APIRouter, Response

from sphereid.api.dependencies import ContextDep, OnceDep, PartsDep, problems
from sphereid.api.schemas.jobs import Job, VideoOptions, shown
from sphereid.api.upload import checked, form, save_upload
from sphereid.jobs.video import KIND, UPLOAD
from sphereid.storage.encrypted_files import EncryptedFiles

router = APIRouter(prefix="/v1/videos", tags=["videos and jobs"])


@router.post(
    "",
    summary="Find out who is on screen when",
    status_code=202,
    response_model=Job,
    responses=problems(400, 404, 408, 409, 413, 415, 422),
    openapi_extra=form("video", VideoOptions),
)
async def analyze_video(parts: PartsDep, context: ContextDep, once: OnceDep) -> Response:
    """Upload a video; the answer is a job. Watch it at `/v1/jobs/{job}/events`, and fetch the annotated
    video, the tracks, the timeline and the captions from `/v1/jobs/{job}/result`. The upload is deleted when
    the job is over."""
    job_id, folder = await anyio.to_thread.run_sync(parts.jobs.reserve)
    submitted = False
    try:
        saved = await save_upload(
            context.request,
            folder / UPLOAD,
            field="video",
            max_bytes=context.limits.video_bytes,
            patience=context.limits.body_timeout,
            files=parts.jobs.files,
        )
        options = checked(VideoOptions, saved)
        await anyio.to_thread.run_sync(parts.gallery.get_gallery, options.gallery)
        await anyio.to_thread.run_sync(_check, folder / UPLOAD, saved.name, parts.jobs.files)

        def submit() -> Job:
            nonlocal submitted
            score = options.min_detection_score
            params = options.model_dump(exclude={"min_detection_score"}) | {
                "min_score": parts.settings.detection.min_score if score is None else score
            }
            job = parts.jobs.submit(job_id, KIND, saved.name or "video", params)
            submitted = True
            return shown(job)

        content = saved.digest + options.model_dump_json().encode()
        return await once(content, lambda: anyio.to_thread.run_sync(submit), 202)
    finally:
        if not submitted:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(parts.jobs.discard, job_id)


def _check(file: Path, name: str | None, files: EncryptedFiles) -> None:
    """Raises VideoError where the file holds no picture."""
    from sphereid.video.reader import VideoReader  # loads FFmpeg: not before a video comes

    VideoReader(file, name, files).close()
