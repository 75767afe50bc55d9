"""Imports into a gallery as a job: photographs in a tar or zip archive, or an exported Parquet file."""

import contextlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

from app.bulk.errors import BulkError, CanceledError
from app.bulk.photographs import ImportOptions, Progress, import_photographs
from app.bulk.report import Journal
from app.bulk.sources import open_source
from app.gallery import portable
from app.gallery.errors import GalleryError
from app.gallery.service import GalleryService
from app.jobs.errors import InterruptedJobError, JobFailedError
from app.jobs.types import Job, JobProgress
from app.jobs.video import RESULTS, UPLOAD
from app.pipeline.decode import DecodeLimits
from app.pipeline.pipeline import FacePipeline

KIND: Final = "import"
ARTIFACTS: Final[Mapping[str, str]] = {"report": "report.json", "report_csv": "report.csv"}
_JOURNAL: Final = "journal.jsonl"


@dataclass(frozen=True, slots=True, eq=False)
class ImportJobs:
    """The handler of imports. Their folder holds `upload`, deleted when the job is over, and `results`, where
    the journal tells a job that begins again what is done."""

    pipeline: FacePipeline
    gallery: GalleryService
    limits: DecodeLimits
    workers: int = 1

    def __call__(
        self,
        job: Job,
        folder: Path,
        report: Callable[[JobProgress], None],
        canceled: Callable[[], bool],
    ) -> Mapping[str, Any]:
        """Import the upload. `Job.result` has the counts; the artifacts say it of every file."""
        params = dict(job.params)
        gallery_id = params.pop("gallery")
        try:
            if is_parquet(folder / UPLOAD):
                return self._restore(gallery_id, folder / UPLOAD, report, canceled)
            return self._photographs(gallery_id, folder, ImportOptions(**params), report, canceled)
        except CanceledError as error:
            raise InterruptedJobError("interrupted") from error
        except (BulkError, GalleryError) as error:
            raise JobFailedError(error.code, str(error)) from error

    def _photographs(
        self,
        gallery_id: str,
        folder: Path,
        options: ImportOptions,
        report: Callable[[JobProgress], None],
        canceled: Callable[[], bool],
    ) -> Mapping[str, Any]:
        def forward(progress: Progress) -> None:
            report(JobProgress("import", progress.done, progress.total, progress.rate, progress.eta))

        results = folder / RESULTS
        results.mkdir(exist_ok=True)
        journal = Journal(results / _JOURNAL)
        try:
            with open_source(folder / UPLOAD, archive=True) as source:
                summary = import_photographs(
                    source,
                    self.pipeline,
                    self.gallery,
                    gallery_id,
                    options,
                    journal=journal,
                    limits=self.limits,
                    workers=self.workers,
                    report=forward,
                    canceled=canceled,
                )
        finally:
            journal.close()
        journal.write_csv(results / ARTIFACTS["report_csv"])
        journal.write_json(results / ARTIFACTS["report"])
        (results / _JOURNAL).unlink()
        return {"artifacts": list(ARTIFACTS), **summary}

    def _restore(
        self,
        gallery_id: str,
        file: Path,
        report: Callable[[JobProgress], None],
        canceled: Callable[[], bool],
    ) -> Mapping[str, Any]:
        done = portable.restore(self.gallery, gallery_id, file, paced("import", report), canceled)
        if canceled():
            raise CanceledError
        return {
            "artifacts": [],
            "identities": done.identities,
            "enrolled": done.enrolled,
            "present": done.present,
        }

    def clean(self, job: Job, folder: Path) -> None:
        """Remove the upload, and all results of a job that did not succeed."""
        (folder / UPLOAD).unlink(missing_ok=True)
        if job.state != "succeeded":
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder / RESULTS)


def is_parquet(file: Path) -> bool:
    """Whether a file begins as Parquet files do."""
    with file.open("rb") as opened:
        return opened.read(4) == b"PAR1"


def paced(stage: str, report: Callable[[JobProgress], None]) -> Callable[[int, int], None]:
    """Takes (done, total) and reports it with the rate since now."""
    begun = monotonic()

    def tell(done: int, total: int) -> None:
        rate = done / max(monotonic() - begun, 1e-6)
        report(JobProgress(stage, done, total, rate, (total - done) / rate if rate > 0 else None))

    return tell
