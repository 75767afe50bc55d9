"""Exports, evaluations and changes of the model of galleries as jobs."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sphereid.bulk.chart import evaluation_svg
from sphereid.bulk.reembedding import reembed
from sphereid.gallery import transfer
from sphereid.gallery.evaluation import evaluate
from sphereid.gallery.service import GalleryService
from sphereid.jobs.types import Job
from sphereid.jobs.video import RESULTS
from sphereid.progress import Canceled, Meter, Report
from sphereid.recognition.models import Models
from sphereid.storage.encrypted_files import PLAIN, EncryptedFiles

EXPORT: Final = "export"
EVALUATION: Final = "evaluation"
REEMBED: Final = "reembed"
ARTIFACTS: Final[Mapping[str, str]] = {
    "gallery": "gallery.parquet",
    "evaluation": "evaluation.json",
    "chart": "evaluation.svg",
    "comparison": "comparison.json",
}


@dataclass(frozen=True, slots=True, eq=False)
class GalleryJobs:
    """The handler of these kinds. What was done of a job that was interrupted is done anew."""

    gallery: GalleryService
    models: Models
    files: EncryptedFiles = PLAIN

    def __call__(self, job: Job, folder: Path, report: Report, canceled: Canceled) -> Mapping[str, Any]:
        """Write the artifacts `gallery`, `evaluation` and `chart`, or `comparison`."""
        results = folder / RESULTS
        results.mkdir(exist_ok=True)
        if job.kind == REEMBED:
            return self._reembed(job, results, report, canceled)
        work = self._export if job.kind == EXPORT else self._evaluate
        return work(job.params["gallery"], results, Meter(job.kind, None, report, canceled))

    def _export(self, gallery_id: str, results: Path, meter: Meter) -> Mapping[str, Any]:
        with self.files.write(results / ARTIFACTS["gallery"]) as file:
            written = transfer.export(self.gallery, gallery_id, file, meter.update)
        return {
            "artifacts": ["gallery"],
            "identities": written.identities,
            "faces": written.faces,
            "revision": written.revision,
            "contract": written.contract,
        }

    def _evaluate(self, gallery_id: str, results: Path, meter: Meter) -> Mapping[str, Any]:
        document = evaluate(self.gallery, gallery_id, tell=meter.update).document()
        self.files.put(results / ARTIFACTS["evaluation"], json.dumps(document, indent=1).encode())
        self.files.put(results / ARTIFACTS["chart"], evaluation_svg(document).encode())
        shown = {key: value for key, value in document.items() if key not in ("histograms", "look_alikes")}
        return {"artifacts": ["evaluation", "chart"], **shown}

    def _reembed(self, job: Job, results: Path, report: Report, canceled: Canceled) -> Mapping[str, Any]:
        params = dict(job.params)
        model = self.models.named(params.pop("model"))  # loaded from here on: the gallery's first request too
        done = reembed(
            self.gallery,
            params.pop("gallery"),
            model.embedder,
            report=report,
            canceled=canceled,
            **params,
        )
        self.files.put(results / ARTIFACTS["comparison"], json.dumps(done, indent=1).encode())
        return {"artifacts": ["comparison"], **done}

    def clean(self, job: Job, folder: Path) -> None:
        """Remove what a job that did not succeed wrote."""
        if job.state != "succeeded":
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder / RESULTS)
