"""Which box of this frame is which box of the frames before: ByteTrack by `edgefirst-tracker`."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from edgefirst.tracker import ByteTrack, TrackInfo
from numpy.typing import NDArray

LIFESPAN: Final = 1.0
"""Seconds that a track outlives its last detection."""


class FaceTracker:
    """Gives boxes the number of their track. Deterministic: the same boxes get the same numbers."""

    def __init__(self, lifespan: float = LIFESPAN) -> None:
        # Detections arrive already filtered by score: every one may start a track.
        self._tracker = ByteTrack(high_conf=0.05, iou=0.2, update=0.25, lifespan_ns=round(lifespan * 1e9))
        self._lifespan = lifespan
        self._time = 0.0
        self._numbers: dict[str, int] = {}
        self._count = 0

    def update(self, time: float, boxes: NDArray[np.float32], scores: Sequence[float]) -> list[int]:
        """The track numbers, from 1, of a frame's boxes.

        time: seconds, never decreasing. boxes: (N, 4) float32 left, top, right, bottom; N may be 0.
        """
        if time - self._time > self._lifespan:
            self._update(time, np.empty((0, 4), np.float32), ())  # it matches before it looks at ages
        self._time = time
        found = self._update(time, boxes, scores)
        numbers = [self._number(None if track is None else track.uuid) for track in found]
        alive = {track.info.uuid for track in self._tracker.get_active_tracks()}
        self._numbers = {uuid: number for uuid, number in self._numbers.items() if uuid in alive}
        return numbers

    def _update(
        self, time: float, boxes: NDArray[np.float32], scores: Sequence[float]
    ) -> list[TrackInfo | None]:
        return self._tracker.update(
            np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
            np.asarray(scores, dtype=np.float32),
            np.zeros(len(boxes), dtype=np.uint64),
            round(time * 1e9),
        )

    def _number(self, uuid: str | None) -> int:
        if uuid is not None and uuid in self._numbers:
            return self._numbers[uuid]
        self._count += 1
        if uuid is not None:
            self._numbers[uuid] = self._count
        return self._count
