"""From the bytes of an image to its faces and their embeddings."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from sphereid.api import schemas as s
from sphereid.api.body import Upload
from sphereid.api.metrics import Metrics
from sphereid.api.workers import Call
from sphereid.faces.decode import DecodedImage, DecodeLimits, decode
from sphereid.faces.types import Face, FloatArray
from sphereid.inference.models import Model
from sphereid.inference.types import AnalysisRequest, Analyzer
from sphereid.settings import Settings

Timings = dict[str, float]
"""Milliseconds by stage."""

STAGES: Final = ("queue", "decode", "detect", "embed")


@dataclass(frozen=True, slots=True, eq=False)
class AnalyzedImage:
    """An image after the pipeline.

    width, height: upright, in pixels. faces: largest first, in the same pixels. vectors: (N, D) float32, no
    rows where no embedding was asked for. picture: the pixels, where they were asked for.
    """

    width: int
    height: int
    faces: tuple[Face, ...]
    vectors: FloatArray
    timings: Timings
    picture: DecodedImage | None = None

    @property
    def size(self) -> s.ImageSize:
        """For the answer."""
        return s.ImageSize(width=self.width, height=self.height)


class ImageAnalyzer:
    """Looks at images as the settings say, and counts what it does in the metrics. Thread-safe."""

    def __init__(self, sight: Analyzer, limits: DecodeLimits, metrics: Metrics, settings: Settings) -> None:
        self._sight = sight
        self._limits = limits
        self._metrics = metrics
        self._min_score = settings.detection.min_score
        self._most_faces = settings.limits.faces_per_image

    def see(
        self,
        model: Model,
        image: Upload,
        options: s.FindOptions,
        call: Call,
        *,
        embed: bool = True,
        hold: bool = False,
    ) -> AnalyzedImage:
        """Decode, detect, judge and embed. hold: keep the picture.

        Raises ImageError, QueueFullError, ProcessLostError, and CancelledError where nobody waits any more.
        """
        call.check()
        asked = options.min_detection_score
        question = AnalysisRequest(
            embed, options.min_face, self._min_score if asked is None else asked, self._most_faces
        )
        looked = self._sight.look(model, image.data, question, call.wanted)
        call.check()
        took = looked.decode + looked.detect + looked.embed
        stages = (max(0.0, 1e3 * (perf_counter() - call.asked) - took), looked.decode, looked.detect)
        timings = dict(zip(STAGES, (*stages, looked.embed) if embed else stages, strict=False))
        for stage, milliseconds in timings.items():
            self._metrics.stage(stage, milliseconds)
        self._metrics.faces.inc(len(looked.faces))
        picture = (looked.picture or decode(image.data, self._limits)) if hold else None
        return AnalyzedImage(looked.width, looked.height, looked.faces, looked.vectors, timings, picture)


@contextmanager
def timed(stage: str, timings: Timings, metrics: Metrics) -> Iterator[None]:
    """Time what is done inside as a stage of the request."""
    start = perf_counter()
    yield
    timings[stage] = 1e3 * (perf_counter() - start)
    metrics.stage(stage, timings[stage])


def add(timings: Timings, more: Timings) -> None:
    """Add the times of each stage, for an answer about several images."""
    for stage, milliseconds in more.items():
        timings[stage] = timings.get(stage, 0.0) + milliseconds


def rounded(timings: Timings) -> Timings:
    """For the answer."""
    return {stage: round(milliseconds, 2) for stage, milliseconds in timings.items()}
