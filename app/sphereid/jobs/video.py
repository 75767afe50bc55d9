"""Video analysis as a job."""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sphereid.gallery.service import GalleryService
from sphereid.inference.models import Model
from sphereid.jobs.types import Job
from sphereid.progress import Canceled, Report
from sphereid.recognition.models import Models, impostor_calibration
from sphereid.storage.encrypted_files import PLAIN, EncryptedFiles
from sphereid.video import files as file_names
from sphereid.video.inbox import Inbox
from sphereid.video.matcher import GalleryMatcher
from sphereid.video.tracks import Links
from sphereid.video.types import VideoOptions

KIND: Final = "video"
UPLOAD: Final = "upload"
RESULTS: Final = "results"
ARTIFACTS: Final[Mapping[str, str]] = {
    "tracks": file_names.TRACKS,
    "csv": file_names.TABLE,
    "timeline": file_names.TIMELINE,
    "vtt": file_names.CAPTIONS,
    "frames": file_names.FRAMES,
    "video": file_names.VIDEO,
}
"""What a finished job offers, and the file behind each."""


@dataclass(frozen=True, slots=True, eq=False)
class VideoJobs:
    """The handler of video jobs. Their folder holds `upload`, deleted when the job is over, and `results`."""

    models: Models
    gallery: GalleryService
    files: EncryptedFiles = PLAIN
    workers: int = 1

    def __call__(self, job: Job, folder: Path, report: Report, canceled: Canceled) -> Mapping[str, Any]:
        """Analyze the upload. `Job.result` says which artifacts there are and who was seen."""
        return self.models.follow(
            job.params["gallery"], lambda model: self._analyze(model, job, folder, report, canceled)
        )

    def _analyze(
        self, model: Model, job: Job, folder: Path, report: Report, canceled: Canceled
    ) -> Mapping[str, Any]:
        from sphereid.video.process import process_video  # loads FFmpeg: not before a video comes

        params = dict(job.params)
        gallery_id = params.pop("gallery")
        matcher = GalleryMatcher(self.gallery, gallery_id, model.contract)
        result = process_video(
            folder / UPLOAD,
            folder / RESULTS,
            model.alone,
            matcher,
            VideoOptions(**params, workers=self.workers),
            links=Links.from_calibration(impostor_calibration(model.manifest)),
            inbox=Inbox(self.gallery, gallery_id, model.contract, job.name[:300]),
            about=matcher.about(),
            name=job.name,
            files=self.files,
            report=report,
            canceled=canceled,
        )
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
