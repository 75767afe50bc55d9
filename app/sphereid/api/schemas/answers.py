"""What is answered about images."""

from typing import Literal

from pydantic import (
    Field,
    JsonValue,
)

from sphereid.api.schemas.base import Output


class Box(Output):
    """A rectangle in pixels of the image as it was sent, upright; it may reach outside."""

    x: float
    y: float
    width: float
    height: float


class Quality(Output):
    """How usable a face is: 0 to 1, and what is wrong with it."""

    score: float
    reasons: list[str]


class FoundFace(Output):
    """A face. landmarks: five (x, y): image-left eye, image-right eye, nose, left and right mouth corner."""

    box: Box
    detection_score: float
    landmarks: list[tuple[float, float]]
    quality: Quality


class EmbeddedFace(FoundFace):
    """A face with its embedding of L2 norm 1."""

    embedding: list[float]


class ModelRef(Output):
    """Which model made the embeddings; those of different contracts are not comparable."""

    name: str
    contract: str


class ImageSize(Output):
    """Of the upright image, in pixels."""

    width: int
    height: int


class Answer(Output):
    """What every answer about images carries."""

    request_id: str
    timings_ms: dict[str, float] = Field(
        examples=[{"queue": 0.1, "decode": 4.1, "detect": 12.0, "embed": 9.2}]
    )


class DetectAnswer(Answer):
    """The faces of an image, largest first."""

    image: ImageSize
    faces: list[FoundFace]


class EmbedAnswer(Answer):
    """The faces of an image with their embeddings."""

    model: ModelRef
    image: ImageSize
    faces: list[EmbeddedFace]


class Threshold(Output):
    """The limit that was used. extrapolated: it lies beyond the measured impostor scores."""

    value: float
    policy: Literal["cosine", "fpir"]
    target: float | None = None
    extrapolated: bool = False


class Margins(Output):
    """Similarity above the threshold, and above the runner-up; null where there is none."""

    to_threshold: float | None
    to_runner_up: float | None


class IdentityRef(Output):
    """Who."""

    id: str
    name: str
    metadata: dict[str, JsonValue]


class Candidate(Output):
    """An identity near the face."""

    identity: IdentityRef
    face_id: str
    similarity: float


class Decided(Output):
    """A decision: `match`, `unknown`, `ambiguous` (the runner-up is too near) or `rejected` (quality)."""

    decision: Literal["match", "unknown", "ambiguous", "rejected"]
    reason: str
    identity: IdentityRef | None
    similarity: float | None
    threshold: Threshold
    candidates: list[Candidate]
    margins: Margins


class IdentifiedFace(Decided, FoundFace):
    """A face and who it is."""


class GalleryRef(Output):
    """The gallery as it was when it was searched."""

    id: str
    revision: int
    faces: int


class IdentifyAnswer(Answer):
    """Every face of the image, largest first, and who each is."""

    model: ModelRef
    gallery: GalleryRef
    image: ImageSize
    faces: list[IdentifiedFace]


class VerifyAnswer(Answer):
    """Whether two images show the same person: `match`, or `unknown` where that was not shown."""

    model: ModelRef
    decision: Literal["match", "unknown"]
    reason: str
    similarity: float
    threshold: Threshold
    margins: Margins
    faces: list[FoundFace]


class VerifyIdentityAnswer(Decided, Answer):
    """Whether an image shows a certain identity."""

    model: ModelRef
    face: FoundFace
