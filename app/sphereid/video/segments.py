"""From frames to stretches of time: who is on screen from when to when."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sphereid.video.types import ShownFrame, Verdict

BREAK: Final = 1.0
"""Seconds out of sight after which a track's row ends and another begins."""


@dataclass(slots=True)
class Segment:
    """A stretch in which one track shows one identity. identity: None for an outlier.

    start, end: seconds; end is where the last frame ends. frames: video frames it is shown in. detections:
    those of them in which it was detected rather than carried over. similarity: pooled cosine (`tracks`
    mode only). mean_similarity: mean cosine of its faces.
    """

    track: int
    chain: int
    part: int
    identity: str | None
    start: float
    end: float
    frames: int = 0
    detections: int = 0
    similarity: float | None = None
    mean_similarity: float | None = None
    _sum: float = field(default=0.0, repr=False)
    _count: int = field(default=0, repr=False)


def segments(
    frames: Iterable[ShownFrame], frame_time: float, verdicts: Mapping[int, Verdict] | None
) -> list[Segment]:
    """The segments of a video, by start. frame_time: mean seconds a frame.

    verdicts: of the parts in `tracks` mode, None in `per_frame` mode, where similarities are averaged here.
    """
    done: list[Segment] = []
    running: dict[tuple[int, str | None], Segment] = {}
    for frame in frames:
        for face in frame.faces:
            key = (face.part, face.identity)
            segment = running.get(key)
            if segment is None or frame.time - segment.end > BREAK:
                segment = Segment(0, face.chain, face.part, face.identity, frame.time, frame.time)
                running[key] = segment
                done.append(segment)
            segment.end = frame.time + frame_time
            segment.frames += 1
            if not face.interpolated:
                segment.detections += 1
                if face.similarity is not None:
                    segment._sum += face.similarity
                    segment._count += 1
        if len(running) > 256:
            running = {key: s for key, s in running.items() if frame.time - s.end <= BREAK}
    for number, segment in enumerate(done, start=1):
        segment.track = number
        if verdicts is not None:
            verdict = verdicts[segment.part]
            segment.similarity, segment.mean_similarity = verdict.similarity, verdict.mean_similarity
        elif segment._count:
            segment.mean_similarity = segment._sum / segment._count
    return done
