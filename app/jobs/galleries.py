"""Exports of galleries as a job."""

import contextlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.gallery import portable
from app.gallery.errors import GalleryError
from app.gallery.service import GalleryService
from app.jobs.errors import InterruptedJobError, JobFailedError
from app.jobs.imports import paced
from app.jobs.types import Job, JobProgress
from app.jobs.video import RESULTS

EXPORT: Final = "export"
ARTIFACTS: Final[Mapping[str, str]] = {"gallery": "gallery.parquet"}


@dataclass(frozen=True, slots=True, eq=False)
class ExportJobs:
    """The handler of exports. What was written of one that was interrupted is written anew."""

    gallery: GalleryService

    def __call__(
        self,
        job: Job,
        folder: Path,
        report: Callable[[JobProgress], None],
        canceled: Callable[[], bool],
    ) -> Mapping[str, Any]:
        """Write the gallery to a Parquet file, the artifact `gallery`."""
        results = folder / RESULTS
        results.mkdir(exist_ok=True)
        tell = paced("export", report)

        def go_on(done: int, total: int) -> None:
            if canceled():
                raise InterruptedJobError("interrupted")
            tell(done, total)

        try:
            written = portable.export(
                self.gallery, job.params["gallery"], results / ARTIFACTS["gallery"], go_on
            )
        except GalleryError as error:
            raise JobFailedError(error.code, str(error)) from error
        return {
            "artifacts": ["gallery"],
            "identities": written.identities,
            "faces": written.faces,
            "revision": written.revision,
            "contract": written.contract,
        }

    def clean(self, job: Job, folder: Path) -> None:
        """Remove what a job that did not succeed wrote."""
        if job.state != "succeeded":
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder / RESULTS)
