"""Jobs: watch them, stop them, fetch what they made."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path as FilePath
from time import monotonic
from typing import Annotated, Final, Literal

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from sphereid.api.dependencies import OnceDep, PartsDep, problems
from sphereid.api.download import sealed_file
from sphereid.api.problems import Problem
from sphereid.api.schemas.jobs import Job, JobPage, JobReceipt, shown
from sphereid.jobs.artifacts import ARTIFACTS
from sphereid.jobs.errors import JobNotFoundError
from sphereid.jobs.runner import JobRunner
from sphereid.jobs.video import RESULTS
from sphereid.video.files import CROPS

router = APIRouter(prefix="/v1/jobs", tags=["videos and jobs"])
JobId = Annotated[str, Path(pattern=r"^[a-z0-9]{16}$", description="The job's id.")]
Artifact = Literal[
    "tracks",
    "csv",
    "timeline",
    "vtt",
    "frames",
    "video",
    "crop",
    "report",
    "report_csv",
    "gallery",
    "evaluation",
    "chart",
    "comparison",
]
TYPES: Final = {
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".csv": "text/csv; charset=utf-8",
    ".vtt": "text/vtt; charset=utf-8",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".mp4": "video/mp4",
    ".svg": "image/svg+xml",
    ".parquet": "application/vnd.apache.parquet",
}
LOOK_EVERY: Final = 0.25
"""Seconds between two looks at a watched job."""
HEARTBEAT: Final = 15.0
"""Seconds of silence after which a watcher gets a comment, so that nobody takes the connection for dead."""


@router.get("", summary="List the jobs", responses=problems(422))
async def list_jobs(
    parts: PartsDep,
    state: Annotated[
        Literal["queued", "running", "succeeded", "failed", "canceled"] | None,
        Query(description="Only jobs in this state."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Most jobs in the answer.")] = 100,
) -> JobPage:
    """The jobs, newest first."""
    jobs = [job for job in parts.jobs.list() if state in (None, job.state)]
    return JobPage(items=[shown(job) for job in jobs[:limit]])


@router.get("/{job}", summary="Show a job", responses=problems(404, 422))
async def get_job(job: JobId, parts: PartsDep) -> Job:
    """State, progress with rate and time to the end, and what came of it."""
    return shown(parts.jobs.get(job))


@router.delete(
    "/{job}", summary="Cancel or delete a job", response_model=JobReceipt, responses=problems(404, 409, 422)
)
async def delete_job(job: JobId, parts: PartsDep, once: OnceDep) -> Response:
    """A job that waits or runs is canceled: it stops within moments, its files go, and it stays in the list
    as `canceled`. A job that is over is removed with all its files."""

    def end() -> JobReceipt:
        if parts.jobs.get(job).final:
            parts.jobs.delete(job)
            return JobReceipt(id=job, deleted=True)
        parts.jobs.cancel(job)
        return JobReceipt(id=job, deleted=False)

    return await once(b"", lambda: anyio.to_thread.run_sync(end))


@router.get(
    "/{job}/events",
    summary="Watch a job",
    response_class=StreamingResponse,
    responses=problems(404, 422)
    | {200: {"description": "`job` events, each the job as JSON.", "content": {"text/event-stream": {}}}},
)
async def watch_job(job: JobId, parts: PartsDep, request: Request) -> StreamingResponse:
    """Server-sent events: a `job` event whenever something changed, the last when the job is over (`deleted`
    when it was removed). Comments keep the connection alive."""
    parts.jobs.get(job)
    return StreamingResponse(
        _events(parts.jobs, job, request),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(jobs: JobRunner, job_id: str, request: Request) -> AsyncIterator[str]:
    last, spoken = "", monotonic()
    while not await request.is_disconnected():
        try:
            job = jobs.get(job_id)
        except JobNotFoundError:
            yield f"event: deleted\ndata: {job_id}\n\n"
            return
        text = shown(job).model_dump_json()
        if text != last:
            last, spoken = text, monotonic()
            yield f"event: job\ndata: {text}\n\n"
        elif monotonic() - spoken >= HEARTBEAT:
            spoken = monotonic()
            yield ": still here\n\n"
        if job.final or jobs.stopping:
            return
        await asyncio.sleep(LOOK_EVERY)


@router.get(
    "/{job}/result",
    summary="Fetch what a job made",
    response_class=FileResponse,
    responses=problems(404, 409, 422)
    | {200: {"description": "The file.", "content": {kind: {} for kind in sorted(set(TYPES.values()))}}},
)
async def get_result(
    job: JobId,
    parts: PartsDep,
    request: Request,
    artifact: Annotated[
        Artifact | None, Query(description="Which of the results (default: the first that the job lists).")
    ] = None,
    crop: Annotated[
        str | None,
        Query(pattern=r"^crops/[0-9]{1,9}\.jpg$", description="With `artifact=crop`: a track's `best_crop`."),
    ] = None,
) -> Response:
    """Of videos: `tracks` is JSON; `csv` a table of the same; `timeline` a PNG; `vtt` captions; `frames` JSON
    lines, one a frame; `video` the annotated MP4, which takes range requests; `crop` the best picture of a
    track. Of imports: `report` is JSON, `report_csv` a table, with a line for every file. Of exports:
    `gallery` is Parquet. Of evaluations: `evaluation` is JSON, `chart` an SVG picture. Of changes of the
    model: `comparison` is JSON."""

    def find() -> tuple[FilePath, str]:
        found = parts.jobs.get(job)
        if found.state != "succeeded":
            raise Problem(
                "job_not_finished", f"the job is {found.state}: there is a result once it succeeded"
            )
        wanted = artifact or next(iter(found.result.get("artifacts", [])), None)
        if wanted is None:
            raise Problem("artifact_not_found", "this job made no files")
        if wanted == "crop":
            if crop is None:
                raise Problem("invalid_request", "crop: say which, as the tracks' `best_crop` names it")
            name = f"{CROPS}/{crop.partition('/')[2]}"
        else:
            name = ARTIFACTS[wanted]
        path = parts.jobs.folder(job) / RESULTS / name
        if not path.is_file():
            raise Problem("artifact_not_found", f"this job made no {wanted}")
        stem = found.name.rpartition(".")[0] or found.name
        return path, f"{stem}.{path.name}"

    path, name = await anyio.to_thread.run_sync(find)
    if not await anyio.to_thread.run_sync(parts.jobs.files.plain, path):
        return await sealed_file(request, parts.jobs.files, path, TYPES[path.suffix], name)
    return FileResponse(path, media_type=TYPES[path.suffix], filename=name, content_disposition_type="inline")
