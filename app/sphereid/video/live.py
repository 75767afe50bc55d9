"""Faces of a live stream: tracked, and decided with what was seen of them so far."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from sphereid.faces.decode import DecodeLimits, decode
from sphereid.faces.pipeline import FacePipeline
from sphereid.faces.types import Face, RGBImage
from sphereid.gallery.errors import ContractMismatchError
from sphereid.gallery.service import GalleryService
from sphereid.gallery.types import Identity
from sphereid.recognition.models import impostor_calibration
from sphereid.recognition.quality_gate import gate
from sphereid.video.analyze import FrameAnalyzer
from sphereid.video.decide import decide_parts
from sphereid.video.inbox import SEEN, UNKNOWN, Inbox, UnknownFace
from sphereid.video.matcher import GalleryMatcher
from sphereid.video.tracks import Links, Part
from sphereid.video.types import Matcher, Sighting, Verdict, VideoOptions

if TYPE_CHECKING:
    from sphereid.inference.models import Model
    from sphereid.recognition.models import Models

REMEMBERED: Final = 10.0
"""Seconds for which a track that is out of sight is remembered."""
_PERSISTENCE: Final = 2
"""Decisions in a row that must contradict a given name before it is revised."""
_CLEAR: Final = 0.9
"""Share of a track's best quality that a face of it must have to stand for it."""

Stranger = Callable[[UnknownFace], object]
"""Gets the best moment of somebody whom nobody could name."""


@dataclass(frozen=True, slots=True, eq=False)
class LiveFace:
    """A face in a frame of a live stream.

    track: its number in this stream. since: seconds, when it began. identity: None for an outlier.
    similarity: pooled cosine to the identity, or to the best candidate of an outlier; None where nothing
    could be compared. threshold: what it had to reach.
    """

    face: Face
    track: int
    since: float
    identity: Identity | None
    similarity: float | None
    threshold: float | None
    reason: str


@dataclass(slots=True)
class _Held:
    verdict: Verdict
    embedded: int
    against: int = 0


class LiveSession:
    """One stream. Use it from one thread at a time. It keeps no picture.

    stranger: told of each track that stays unknown, once, with a face of it.
    """

    def __init__(
        self,
        pipeline: FacePipeline,
        matcher: Matcher,
        options: VideoOptions,
        links: Links | None = None,
        stranger: Stranger | None = None,
    ) -> None:
        self._analyzer = FrameAnalyzer(pipeline, options, links)
        self._matcher = matcher
        self._held: dict[int, _Held] = {}
        self._known: Mapping[str, Identity] = {}
        self._stranger = stranger
        self._told: set[int] = set()

    @property
    def remembered(self) -> int:
        """How many tracks are kept, those in sight included."""
        return len(self._analyzer.book.parts)

    def frame(self, time: float, image: RGBImage) -> list[LiveFace]:
        """The faces of the stream's next frame, largest first.

        time: seconds, never decreasing. image: (H, W, 3) uint8 RGB, upright.
        """
        searched = self._analyzer.search(image)
        sightings = self._analyzer.observe(time, searched)
        book = self._analyzer.book
        self._decide({sighting.part: book.parts[sighting.part] for sighting in sightings})
        book.forget(time - REMEMBERED)
        self._held = {number: held for number, held in self._held.items() if number in book.parts}
        faces = []
        self._told &= book.parts.keys()
        for analyzed, sighting in zip(searched.faces, sightings, strict=True):
            verdict = self._held[sighting.part].verdict
            self._tell(image, analyzed.face, sighting, book.parts[sighting.part], verdict)
            faces.append(
                LiveFace(
                    analyzed.face,
                    sighting.part,
                    book.parts[sighting.part].start,
                    None if verdict.identity is None else self._known.get(verdict.identity),
                    verdict.similarity,
                    None if verdict.threshold is None else verdict.threshold.value,
                    verdict.reason,
                )
            )
        return faces

    def _tell(self, image: RGBImage, face: Face, sighting: Sighting, part: Part, verdict: Verdict) -> None:
        """Tell of somebody who stays unknown, at a moment when the face can be seen well."""
        if (
            self._stranger is not None
            and verdict.identity is None
            and verdict.reason in UNKNOWN
            and part.number not in self._told
            and part.embedded >= SEEN
            and sighting.vector is not None
            and sighting.quality >= _CLEAR * part.best_quality
            and not gate(face, "normal")
        ):
            self._told.add(part.number)
            self._stranger(UnknownFace.of(image, face, sighting.vector))

    def _decide(self, visible: Mapping[int, Part]) -> None:
        """Decide all visible parts together when the evidence on one of them has grown."""
        grown = [n for n, p in visible.items() if n not in self._held or self._held[n].embedded != p.embedded]
        if not grown:
            return
        others = {number: set(visible) - {number} for number in visible}
        for number, verdict in decide_parts(visible, others, self._matcher).items():
            held = self._held.get(number)
            embedded = visible[number].embedded
            if held is None or held.verdict.identity in (None, verdict.identity):
                self._held[number] = _Held(verdict, embedded)
                continue
            held.embedded = embedded
            held.against += 1
            if held.against >= _PERSISTENCE:
                self._held[number] = _Held(verdict, embedded)
        wanted = {h.verdict.identity for h in self._held.values() if h.verdict.identity is not None}
        self._known = self._matcher.identities(sorted(wanted))


class GallerySession:
    """A stream decided by a gallery. Where another model takes the gallery over, it begins anew with that
    one: tracks get new numbers, and nobody has to connect again."""

    def __init__(self, models: "Models", gallery_id: str, begin: "Callable[[Model], LiveSession]") -> None:
        """Raises NotFoundError, ContractMismatchError."""
        self._models = models
        self._gallery_id = gallery_id
        self._begin = begin
        self._model, self._session = models.follow(gallery_id, lambda model: (model, begin(model)))

    @property
    def remembered(self) -> int:
        """As `LiveSession.remembered`."""
        return self._session.remembered

    def frame(self, time: float, image: RGBImage) -> list[LiveFace]:
        """As `LiveSession.frame`."""
        try:
            return self._session.frame(time, image)
        except ContractMismatchError:
            if not self._models.moved(self._gallery_id, self._model):
                raise
        model, self._session = self._models.follow(self._gallery_id, lambda new: (new, self._begin(new)))
        self._model = model
        return self.frame(time, image)


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """Opens live streams."""

    models: "Models"
    gallery: GalleryService
    limits: DecodeLimits
    min_score: float

    def open(
        self,
        gallery_id: str,
        *,
        mode: Literal["tracks", "per_frame"] = "tracks",
        min_face: int | None = None,
        min_score: float | None = None,
        source: str | None = None,
    ) -> GallerySession:
        """A new stream. Strangers go into the gallery's inbox, where it has one; source: what that says of
        where they were seen. Raises NotFoundError, ContractMismatchError."""
        options = VideoOptions(mode, None, min_face, self.min_score if min_score is None else min_score)

        def begin(model: "Model") -> LiveSession:
            matcher = GalleryMatcher(self.gallery, gallery_id, model.contract)
            inbox = Inbox(self.gallery, gallery_id, model.contract, source)
            links = Links.from_calibration(impostor_calibration(model.manifest))
            return LiveSession(model.alone, matcher, options, links, lambda face: inbox.put([face]))

        return GallerySession(self.models, gallery_id, begin)

    def decode(self, data: bytes) -> RGBImage:
        """A frame's file as (H, W, 3) uint8 RGB; its size is what coordinates count in. Raises ImageError."""
        return decode(data, self.limits).pixels
