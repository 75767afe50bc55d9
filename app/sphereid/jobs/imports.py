"""Imports into a gallery as a job: photographs in a tar or zip archive, or an exported Parquet file."""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sphereid.bulk.photographs import ImportOptions, import_photographs
from sphereid.bulk.report import Journal
from sphereid.bulk.sources import open_source
from sphereid.faces.decode import DecodeLimits
from sphereid.gallery import transfer
from sphereid.gallery.service import GalleryService
from sphereid.inference.models import Model
from sphereid.jobs.types import Job
from sphereid.jobs.video import RESULTS, UPLOAD
from sphereid.progress import Canceled, Meter, Report
from sphereid.recognition.models import Models
from sphereid.storage.encrypted_files import PLAIN, EncryptedFiles

KIND: Final = "import"
ARTIFACTS: Final[Mapping[str, str]] = {"report": "report.json", "report_csv": "report.csv"}
_JOURNAL: Final = "journal.jsonl"


@dataclass(frozen=True, slots=True, eq=False)
class ImportJobs:
    """The handler of imports. Their folder holds `upload`, deleted when the job is over, and `results`, where
    the journal tells a job that begins again what is done."""

    models: Models
    gallery: GalleryService
    limits: DecodeLimits
    files: EncryptedFiles = PLAIN
    workers: int = 1

    def __call__(self, job: Job, folder: Path, report: Report, canceled: Canceled) -> Mapping[str, Any]:
        """Import the upload. `Job.result` has the counts; the artifacts say it of every file."""
        params = dict(job.params)
        gallery_id = params.pop("gallery")
        if is_parquet(folder / UPLOAD, self.files):
            meter = Meter(KIND, None, report, canceled)
            with self.files.read(folder / UPLOAD) as file:
                done = transfer.restore(self.gallery, gallery_id, file, meter.update)
            counts = {"identities": done.identities, "enrolled": done.enrolled, "present": done.present}
            return {"artifacts": [], **counts}
        options = ImportOptions(**params)
        return self.models.follow(
            gallery_id, lambda model: self._photographs(model, gallery_id, folder, options, report, canceled)
        )

    def _photographs(
        self,
        model: Model,
        gallery_id: str,
        folder: Path,
        options: ImportOptions,
        report: Report,
        canceled: Canceled,
    ) -> Mapping[str, Any]:
        results = folder / RESULTS
        results.mkdir(exist_ok=True)
        journal = Journal(results / _JOURNAL, self.files)
        try:
            with open_source(folder / UPLOAD, archive=True, files=self.files) as source:
                summary = import_photographs(
                    source,
                    model.alone,
                    self.gallery,
                    gallery_id,
                    options,
                    journal=journal,
                    limits=self.limits,
                    workers=self.workers,
                    report=report,
                    canceled=canceled,
                )
        finally:
            journal.close()
        journal.write_csv(results / ARTIFACTS["report_csv"])
        journal.write_json(results / ARTIFACTS["report"])
        (results / _JOURNAL).unlink()
        return {"artifacts": list(ARTIFACTS), **summary}

    def clean(self, job: Job, folder: Path) -> None:
        """Remove the upload, and all results of a job that did not succeed."""
        (folder / UPLOAD).unlink(missing_ok=True)
        if job.state != "succeeded":
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder / RESULTS)


def is_parquet(file: Path, files: EncryptedFiles = PLAIN) -> bool:
    """Whether a file begins as Parquet files do."""
    with files.read(file) as opened:
        return opened.read(4) == b"PAR1"
