"""The JSON of videos and jobs."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from sphereid.api.schemas import Input, Output, Slug
from sphereid.jobs import types as j


class VideoOptions(Input):
    """How a video is read."""

    gallery: Slug = Field("default", description="The gallery whose people are looked for.")
    mode: Literal["tracks", "per_frame"] = Field(
        "tracks",
        description="`tracks`: evidence is pooled along a track and decided once; steadier and faster. "
        "`per_frame`: each face of each frame is decided by itself, as in SphereFace's demonstration.",
    )
    every_n: int | None = Field(
        None,
        ge=1,
        le=250,
        description="Search faces in every n-th frame; between them boxes are carried over (default: 1 in "
        "`per_frame`, about ten a second in `tracks`).",
    )
    min_face: int | None = Field(
        None, ge=12, le=10_000, description="Shortest side of a face, in pixels (default: the service's)."
    )
    min_detection_score: float | None = Field(
        None, ge=0, lt=1, description="Lowest detection score of a face (default: the service's)."
    )
    annotate: bool = Field(True, description="Also make the video with boxes and names drawn in.")


class JobProgress(Output):
    """How far a running job has come."""

    stage: str = Field(
        description="What is being done: of videos `analyze` and `render`; `import`, `export`, `evaluation`; "
        "of changes of the model `embed`, `compare` and `exchange`."
    )
    done: int
    total: int | None = Field(description="Null where it is unknown.")
    rate: float = Field(description="Done a second: frames of videos, files of imports, faces of exports.")
    eta_seconds: float | None = Field(description="To the end of the stage; null where it is unknown.")


class JobFailure(Output):
    """Why a job failed."""

    code: str
    detail: str


class Job(Output):
    """Work that takes a while. It ends `succeeded`, `failed` or `canceled`."""

    id: str
    kind: str
    name: str = Field(description="For people; of videos the file's name.")
    state: j.State
    params: dict[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int = Field(description="How often it was begun; more than once after the service ended.")
    progress: JobProgress | None
    error: JobFailure | None
    result: dict[str, Any] = Field(
        description="Empty until it succeeded. `artifacts` says what can be fetched; videos also have "
        "`people`, `frames`, `duration` and `truncated`, imports counts of files by what became of them."
    )


class JobPage(Output):
    """Jobs, newest first."""

    items: list[Job]


class JobReceipt(Output):
    """What became of a job that was canceled or deleted."""

    id: str
    deleted: bool = Field(description="True: it is gone with its files. False: it was running and is ending.")


def shown(job: j.Job) -> Job:
    """A job as the API shows it."""
    progress = job.progress
    return Job(
        id=job.id,
        kind=job.kind,
        name=job.name,
        state=job.state,
        params=dict(job.params),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        attempts=job.attempts,
        progress=None
        if progress is None
        else JobProgress(
            stage=progress.stage,
            done=progress.done,
            total=progress.total,
            rate=round(progress.rate, 2),
            eta_seconds=None if progress.eta is None else round(progress.eta, 1),
        ),
        error=None if job.failure is None else JobFailure(code=job.failure.code, detail=job.failure.detail),
        result=dict(job.result),
    )
