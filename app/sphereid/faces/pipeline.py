"""From pixels to faces with quality and embedding, in one call."""

from dataclasses import dataclass, replace
from time import perf_counter

from sphereid.faces.decode import DecodedImage
from sphereid.faces.ports import FaceDetector, FaceEmbedder
from sphereid.faces.quality import QualityThresholds, assess
from sphereid.faces.types import Embedding, Face, RGBImage


@dataclass(frozen=True, slots=True, eq=False)
class AnalyzedFace:
    """A face with all that was measured of it.

    face: its box and landmarks in pixels of the original picture; its quality is set.
    crop: (H, W, 3) uint8 RGB, aligned to the model's template. embedding: None unless it was asked for.
    """

    face: Face
    crop: RGBImage
    embedding: Embedding | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """How long each step took, in milliseconds."""

    detect: float = 0.0
    align: float = 0.0
    quality: float = 0.0
    embed: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """The faces of one picture, largest first, and what they cost."""

    faces: tuple[AnalyzedFace, ...]
    timings_ms: Timings


class FacePipeline:
    """Detector, aligner, quality and embedder behind one call. As thread-safe as the ports behind it."""

    def __init__(
        self,
        detector: FaceDetector,
        embedder: FaceEmbedder,
        *,
        quality: QualityThresholds | None = None,
    ) -> None:
        self.detector = detector
        self.embedder = embedder
        self.quality = quality or QualityThresholds()

    def analyze(
        self,
        image: DecodedImage | RGBImage,
        *,
        embed: bool = True,
        min_face: int | None = None,
        min_score: float | None = None,
        max_faces: int | None = None,
    ) -> Analysis:
        """Every face of a picture; no face gives an empty analysis.

        image: upright RGB, (H, W, 3) uint8, or what `decode` gave; with the latter all coordinates, and
        min_face, count in pixels of the original even when it was decoded at reduced size.
        embed: whether to compute embeddings. min_face: pixels; min_score: in [0, 1] (None: the detector's
        defaults). max_faces: keep only so many, the largest (None: all).
        """
        pixels, scale = (image.pixels, image.scale) if isinstance(image, DecodedImage) else (image, 1.0)
        start = perf_counter()
        if min_face is not None:
            min_face = max(1, round(min_face * scale))
        found = self.detector.detect(pixels, min_face=min_face, min_score=min_score)[:max_faces]
        detected = perf_counter()
        crops = self.embedder.align(pixels, found)
        aligned = perf_counter()
        qualities = assess(found, crops, pixels.shape[:2], self.quality)
        assessed = perf_counter()
        embeddings: list[Embedding | None] = [None] * len(found)
        if embed:
            vectors = self.embedder.embed(crops)
            embeddings = [Embedding(vector, self.embedder.contract) for vector in vectors]
        done = perf_counter()
        faces = tuple(
            AnalyzedFace(replace(_rescaled(face, scale), quality=quality), crop, embedding)
            for face, quality, crop, embedding in zip(found, qualities, crops, embeddings, strict=True)
        )
        timings = Timings(
            *(
                1e3 * (after - before)
                for before, after in (
                    (start, detected),
                    (detected, aligned),
                    (aligned, assessed),
                    (assessed, done),
                )
            )
        )
        return Analysis(faces, timings)


def _rescaled(face: Face, scale: float) -> Face:
    if scale == 1.0:
        return face
    return replace(face, box_xyxy=face.box_xyxy / scale, landmarks=face.landmarks / scale)
