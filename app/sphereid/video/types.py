"""What travels through the video room: options, sightings, tracks and progress."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from sphereid.faces.types import FloatArray
from sphereid.gallery.types import Decision, Identity, Threshold

Mode = Literal["per_frame", "tracks"]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the upright frame."""


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How a video is read.

    mode: `per_frame` decides every face of every analyzed frame by itself, as the SphereFace demo does;
    `tracks` pools the evidence along a track and decides it once. every_n: faces are detected in every n-th
    frame and carried over to those between (None: every frame in `per_frame`, about ten a second in
    `tracks`). min_face: pixels; min_score: in [0, 1] (None: the detector's defaults). annotate: whether to
    write the video with boxes. workers: frames searched for faces at the same time.
    """

    mode: Mode = "tracks"
    every_n: int | None = None
    min_face: int | None = None
    min_score: float | None = 0.9
    annotate: bool = True
    workers: int = 2

    def step(self, rate: float) -> int:
        """Every how many frames faces are detected in a video of `rate` frames a second."""
        if self.every_n is not None:
            return self.every_n
        return 1 if self.mode == "per_frame" else max(1, round(rate / 10))


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """A face detected in an analyzed frame.

    chain: the geometric track. part: the stretch of that track that looks like one person. score, quality:
    in [0, 1]. vector: (D,) float32 of L2 norm 1, None where the face was not embedded.
    """

    box: Box
    score: float
    quality: float
    chain: int
    part: int
    vector: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A face as the result shows it. identity: None for an outlier. similarity: the cosine that decided
    (None where nothing could be compared). interpolated: carried over from the frames around it."""

    box: Box
    chain: int
    part: int
    identity: str | None
    similarity: float | None
    interpolated: bool = False


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """A frame of the video with the faces in it. time: seconds from the start."""

    index: int
    time: float
    faces: tuple[Shown, ...]


class Matcher(Protocol):
    """One gallery as the video room sees it."""

    def identify(self, vectors: FloatArray) -> Sequence[Decision]:
        """Decisions for (N, D) float32 rows of L2 norm 1, each by itself; N may be 0."""
        ...

    def identities(self, ids: Sequence[str]) -> Mapping[str, Identity]:
        """The identities of these ids; ids that are gone are left out."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about a part of a track, or about one face in `per_frame` mode.

    identity: None for an outlier. similarity: the pooled embedding's cosine to the identity, or to the best
    candidate of an outlier, scaled as `decide_parts` says. mean_similarity: the quality-weighted mean of the
    single faces' cosines.
    """

    identity: str | None
    similarity: float | None
    mean_similarity: float | None
    threshold: Threshold | None
    reason: str
