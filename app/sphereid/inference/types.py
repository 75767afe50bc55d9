"""What is asked about a picture, what comes back, and who can be asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sphereid.faces.decode import DecodedImage
from sphereid.faces.errors import PipelineError
from sphereid.faces.types import Face, FloatArray
from sphereid.inference.batcher import BatchReport
from sphereid.inference.models import Model

if TYPE_CHECKING:
    from sphereid.faces.pipeline import AnalyzedFace, FacePipeline


class ProcessLostError(PipelineError):
    """The process that looked at the picture ended before it answered."""

    code = "process_lost"


@dataclass(frozen=True, slots=True)
class AnalysisRequest:
    """What to look for. embed: whether embeddings are wanted.

    min_face: shortest side in pixels (None: the detector's default). min_score: in [0, 1]. max_faces: only so
    many, the largest.
    """

    embed: bool
    min_face: int | None
    min_score: float
    max_faces: int

    def find(self, picture: DecodedImage, pipeline: "FacePipeline") -> "Sequence[AnalyzedFace]":
        """The faces that are asked for, largest first, not embedded yet."""
        return pipeline.analyze(
            picture,
            embed=False,
            min_face=self.min_face,
            min_score=self.min_score,
            max_faces=self.max_faces,
        ).faces


@dataclass(frozen=True, slots=True, eq=False)
class WorkerResult:
    """What was seen.

    width, height: of the upright picture, in pixels. faces: largest first, in the same pixels, with their
    quality. vectors: (N, D) float32, no rows where no embedding was asked for.
    decode, detect, embed: milliseconds of work. batches: the embedder's, where nobody counted them yet.
    picture: the pixels, where they are in this process.
    """

    width: int
    height: int
    faces: tuple[Face, ...]
    vectors: FloatArray
    decode: float
    detect: float
    embed: float
    batches: tuple[BatchReport, ...] = ()
    picture: DecodedImage | None = None


class Analyzer(Protocol):
    """Looks at pictures. Safe to call from several threads at once."""

    def look(
        self, model: Model, file: bytes, question: AnalysisRequest, wanted: Callable[[], bool]
    ) -> WorkerResult:
        """Decode a picture, find and judge its faces, embed them with `model`.

        wanted: whether anybody still waits; False ends the work at its next step with CancelledError.
        Raises ImageError, ModelError, QueueFullError and ProcessLostError.
        """
        ...
