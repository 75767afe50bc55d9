"""Video analysis as a job."""

import contextlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.gallery.errors import GalleryError
from app.gallery.service import GalleryService
from app.jobs.errors import InterruptedJobError, JobFailedError
from app.jobs.types import Job, JobProgress
from app.pipeline.pipeline import FacePipeline
from app.video import files
from app.video.errors import CanceledError, VideoError
from app.video.gallery import GalleryMatcher
from app.video.inbox import Inbox
from app.video.tracks import Links
from app.video.types import Progress, VideoOptions

KIND: Final = "video"
UPLOAD: Final = "upload"
RESULTS: Final = "results"
ARTIFACTS: Final[Mapping[str, str]] = {
    "tracks": files.TRACKS,
    "csv": files.TABLE,
    "timeline": files.TIMELINE,
    "vtt": files.CAPTIONS,
    "frames": files.FRAMES,
    "video": files.VIDEO,
}
"""What a finished job offers, and the file behind each."""


@dataclass(frozen=True, slots=True, eq=False)
class VideoJobs:
    """The handler of video jobs. Their folder holds `upload`, deleted when the job is over, and `results`."""

    pipeline: FacePipeline
    gallery: GalleryService
    links: Links
    workers: int = 1

    def __call__(
        self,
        job: Job,
        folder: Path,
        report: Callable[[JobProgress], None],
        canceled: Callable[[], bool],
    ) -> Mapping[str, Any]:
        """Analyze the upload. `Job.result` says which artifacts there are and who was seen."""
        from app.video.process import process_video  # loads FFmpeg: not before a video comes

        def forward(progress: Progress) -> None:
            report(JobProgress(progress.stage, progress.done, progress.total, progress.rate, progress.eta))

        params = dict(job.params)
        gallery_id = params.pop("gallery")
        try:
            matcher = GalleryMatcher(self.gallery, gallery_id, self.pipeline.embedder.contract)
            result = process_video(
                folder / UPLOAD,
                folder / RESULTS,
                self.pipeline,
                matcher,
                VideoOptions(**params, workers=self.workers),
                links=self.links,
                inbox=Inbox(self.gallery, gallery_id, self.pipeline.embedder.contract, job.name[:300]),
                about=matcher.about(),
                name=job.name,
                report=forward,
                canceled=canceled,
            )
        except CanceledError as error:
            raise InterruptedJobError("interrupted") from error
        except (VideoError, GalleryError) as error:
            raise JobFailedError(error.code, str(error)) from error
        return {
            "artifacts": [name for name, file in ARTIFACTS.items() if (folder / RESULTS / file).is_file()],
            "frames": result.frames,
            "duration": result.info.duration,
            "truncated": result.truncated,
            "people": list(result.people),
            "tracks": len(result.segments),
            "unknowns": result.unknowns,
            "seconds": dict(result.seconds),
        }

    def clean(self, job: Job, folder: Path) -> None:
        """Remove the upload, and all results of a job that did not succeed."""
        (folder / UPLOAD).unlink(missing_ok=True)
        if job.state != "succeeded":
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder / RESULTS)
