"""Exports, evaluations and changes of the model of galleries as jobs."""

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.bulk.chart import evaluation_svg
from app.bulk.errors import BulkError, CanceledError
from app.bulk.reembedding import reembed
from app.gallery import portable
from app.gallery.errors import GalleryError
from app.gallery.evaluation import evaluate
from app.gallery.service import GalleryService
from app.jobs.errors import InterruptedJobError, JobFailedError
from app.jobs.imports import paced
from app.jobs.types import Job, JobProgress
from app.jobs.video import RESULTS
from app.pipeline.errors import PipelineError
from app.pipeline.ports import FaceEmbedder

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
    """The handler of these kinds. What was done of a job that was interrupted is done anew.

    load: the embedder of a model by its folder's name.
    """

    gallery: GalleryService
    load: Callable[[str], FaceEmbedder]

    def __call__(
        self,
        job: Job,
        folder: Path,
        report: Callable[[JobProgress], None],
        canceled: Callable[[], bool],
    ) -> Mapping[str, Any]:
        """Write the artifacts `gallery`, `evaluation` and `chart`, or `comparison`."""
        results = folder / RESULTS
        results.mkdir(exist_ok=True)
        told = paced(job.kind, report)

        def tell(done: int, total: int) -> None:
            if canceled():
                raise InterruptedJobError("interrupted")
            told(done, total)

        try:
            if job.kind == REEMBED:
                return self._reembed(job, results, report, canceled)
            work = self._export if job.kind == EXPORT else self._evaluate
            return work(job.params["gallery"], results, tell)
        except CanceledError as error:
            raise InterruptedJobError("interrupted") from error
        except (GalleryError, BulkError, PipelineError) as error:
            raise JobFailedError(error.code, str(error)) from error

    def _export(self, gallery_id: str, results: Path, tell: Callable[[int, int], None]) -> Mapping[str, Any]:
        written = portable.export(self.gallery, gallery_id, results / ARTIFACTS["gallery"], tell)
        return {
            "artifacts": ["gallery"],
            "identities": written.identities,
            "faces": written.faces,
            "revision": written.revision,
            "contract": written.contract,
        }

    def _evaluate(
        self, gallery_id: str, results: Path, tell: Callable[[int, int], None]
    ) -> Mapping[str, Any]:
        document = evaluate(self.gallery, gallery_id, tell=tell).document()
        (results / ARTIFACTS["evaluation"]).write_text(json.dumps(document, indent=1), encoding="utf-8")
        (results / ARTIFACTS["chart"]).write_text(evaluation_svg(document), encoding="utf-8")
        shown = {key: value for key, value in document.items() if key not in ("histograms", "look_alikes")}
        return {"artifacts": ["evaluation", "chart"], **shown}

    def _reembed(
        self,
        job: Job,
        results: Path,
        report: Callable[[JobProgress], None],
        canceled: Callable[[], bool],
    ) -> Mapping[str, Any]:
        embed = paced("embed", report)

        def tell(stage: str, done: int, total: int) -> None:
            if stage == "embed":
                embed(done, total)
            else:
                report(JobProgress(stage, done, total, 0.0, None))

        params = dict(job.params)
        model = self.load(params.pop("model"))
        done = reembed(self.gallery, params.pop("gallery"), model, tell=tell, canceled=canceled, **params)
        (results / ARTIFACTS["comparison"]).write_text(json.dumps(done, indent=1), encoding="utf-8")
        return {"artifacts": ["comparison"], **done}

    def clean(self, job: Job, folder: Path) -> None:
        """Remove what a job that did not succeed wrote."""
        if job.state != "succeeded":
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder / RESULTS)
