"""The first pass: frames to tracks with pooled evidence. Knows no gallery."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from sphereid.faces.pipeline import AnalyzedFace, FacePipeline
from sphereid.faces.types import FloatArray, RGBImage
from sphereid.progress import Canceled, Meter, Report
from sphereid.storage.encrypted_files import PLAIN, EncryptedFiles
from sphereid.video.inbox import BestFaces
from sphereid.video.spool import AnalyzedFrame, Spool
from sphereid.video.tracker import FaceTracker
from sphereid.video.tracks import Links, TrackBook
from sphereid.video.types import Box, Sighting, VideoOptions

if TYPE_CHECKING:  # it loads FFmpeg, which live streams and most of the service's life do without
    from sphereid.video.reader import VideoPicture, VideoReader

_CROP_SIDE: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """A frame in which faces were searched; its faces are aligned and judged but not embedded."""

    image: RGBImage
    faces: tuple[AnalyzedFace, ...]


class FrameAnalyzer:
    """Feeds searched frames to the tracker and the book, embedding the faces that are due.

    Serves files and live streams alike; one a stream, from one thread at a time.
    """

    def __init__(self, pipeline: FacePipeline, options: VideoOptions, links: Links | None = None) -> None:
        self.book = TrackBook(links)
        self._pipeline = pipeline
        self._options = options
        self._tracker = FaceTracker()

    def search(self, image: RGBImage) -> Searched:
        """Detect, align and judge the faces of an upright frame. Safe to call from several threads."""
        options = self._options
        analysis = self._pipeline.analyze(
            image, embed=False, min_face=options.min_face, min_score=options.min_score
        )
        return Searched(image, analysis.faces)

    def observe(self, time: float, searched: Searched) -> tuple[Sighting, ...]:
        """Put a frame's faces on their tracks. time: seconds, never decreasing."""
        faces = searched.faces
        boxes = [_box(face) for face in faces]
        chains = self._tracker.update(time, _array(boxes), [face.face.score for face in faces])
        vectors: list[FloatArray | None] = [None] * len(faces)
        if faces:
            crops = np.stack([face.crop for face in faces])
            due = self.book.due(time, chains, crops)
            if self._options.mode == "per_frame":
                due[:] = True
            embedded = self._pipeline.embedder.embed(crops[due])
            for i, vector in zip(np.flatnonzero(due), embedded, strict=True):
                vectors[i] = _as_stored(vector)
        sightings = [
            Sighting(box, round(face.face.score, 4), round(_quality(face), 4), chain, 0, vector)
            for box, face, chain, vector in zip(boxes, faces, chains, vectors, strict=True)
        ]
        return self._add(time, sightings)

    def replay(self, frame: AnalyzedFrame) -> None:
        """Bring tracker and book to where they were after a frame that was analyzed earlier."""
        if frame.sightings is not None:
            boxes = [sighting.box for sighting in frame.sightings]
            self._tracker.update(frame.time, _array(boxes), [s.score for s in frame.sightings])
            self._add(frame.time, frame.sightings)

    def _add(self, time: float, sightings: list[Sighting] | tuple[Sighting, ...]) -> tuple[Sighting, ...]:
        parts = self.book.add(time, sightings)
        return tuple(replace(s, part=part) for s, part in zip(sightings, parts, strict=True))


def analyze(
    reader: "VideoReader",
    analyzer: FrameAnalyzer,
    spool: Spool,
    options: VideoOptions,
    crops: Path,
    *,
    best: BestFaces | None = None,
    files: EncryptedFiles = PLAIN,
    report: Report | None = None,
    canceled: Canceled | None = None,
) -> int:
    """Analyze a video into `spool`, going on where the spool ends. Returns the number of frames.

    crops: folder for the best picture of each part, `<part>.jpg`. best: is offered every face.
    Raises CanceledError, VideoError.
    """
    known = 0
    for frame in spool.frames():
        analyzer.replay(frame)
        known = frame.index + 1
    saved = {number: part.best_quality for number, part in analyzer.book.parts.items()}
    meter = Meter("analyze", reader.info.frames, report, canceled, skipped=known)
    done = known
    for picture, searched in _searched(reader, analyzer, options, known):
        sightings = None
        if searched is not None:
            sightings = analyzer.observe(picture.time, searched)
            _keep_best(searched.image, sightings, saved, crops, files)
            if best is not None:
                best.offer(searched.image, [face.face for face in searched.faces], sightings)
        spool.append(AnalyzedFrame(picture.index, picture.time, sightings))
        done = picture.index + 1
        meter.update(done)
    spool.flush()
    meter.update(done, force=True)
    return done


def _searched(
    reader: "VideoReader", analyzer: FrameAnalyzer, options: VideoOptions, known: int
) -> "Iterator[tuple[VideoPicture, Searched | None]]":
    """Every frame from `known` on, in order, every n-th with its faces; searches run a few frames ahead."""
    step = options.step(reader.info.rate)
    waiting: deque[tuple[VideoPicture, Future[Searched] | None]] = deque()
    ahead = 0
    with ThreadPoolExecutor(options.workers, "video-search") as pool:
        try:
            for picture in reader.pictures():
                if picture.index < known:
                    continue
                job = None
                if picture.index % step == 0:
                    job = pool.submit(lambda p: analyzer.search(p.image()), picture)
                    ahead += 1
                waiting.append((picture, job))
                while ahead > options.workers:
                    first, ready = waiting.popleft()
                    ahead -= ready is not None
                    yield first, None if ready is None else ready.result()
            while waiting:
                first, ready = waiting.popleft()
                yield first, None if ready is None else ready.result()
        finally:
            for _, pending in waiting:
                if pending is not None:
                    pending.cancel()


def _keep_best(
    image: RGBImage,
    sightings: tuple[Sighting, ...],
    saved: dict[int, float],
    folder: Path,
    files: EncryptedFiles,
) -> None:
    """Write a sighting that is clearly better than what its part has."""
    for sighting in sightings:
        if sighting.quality > 1.05 * saved.get(sighting.part, -1.0):
            saved[sighting.part] = sighting.quality
            _, picture = cv2.imencode(".jpg", cv2.cvtColor(_cut(image, sighting.box), cv2.COLOR_RGB2BGR))
            files.put(folder / f"{sighting.part}.jpg", picture.tobytes())


def _cut(image: RGBImage, box: Box) -> RGBImage:
    """The face with a quarter of its size around it, at most 256 pixels high or wide."""
    left, top, right, bottom = box
    margin = 0.25 * max(right - left, bottom - top)
    height, width = image.shape[:2]
    x0, x1 = max(0, int(left - margin)), min(width, int(right + margin) + 1)
    y0, y1 = max(0, int(top - margin)), min(height, int(bottom + margin) + 1)
    face = image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    scale = _CROP_SIDE / max(face.shape[:2])
    if scale < 1:
        face = np.asarray(cv2.resize(face, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    return face


def _box(face: AnalyzedFace) -> Box:
    left, top, right, bottom = (round(float(edge), 1) for edge in face.face.box_xyxy)
    return left, top, right, bottom


def _array(boxes: list[Box]) -> FloatArray:
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)


def _quality(face: AnalyzedFace) -> float:
    return 0.0 if face.face.quality is None else face.face.quality.score


def _as_stored(vector: FloatArray) -> FloatArray:
    """The vector with the precision of the working file, so that a replay gives the same evidence."""
    short = vector.astype(np.float16).astype(np.float32)
    return np.asarray(short / max(float(np.linalg.norm(short)), 1e-12), dtype=np.float32)
