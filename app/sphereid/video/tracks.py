"""Evidence along tracks: stretches that look like one person, and the pooled embedding of each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sphereid.faces.types import FloatArray, RGBImage
from sphereid.gallery.thresholds.calibration import ImpostorCalibration
from sphereid.video.tracker import LIFESPAN
from sphereid.video.types import Box, Sighting

_FIRST: Final = 3
"""Faces embedded at the start of a part, before the schedule thins them out."""
_INTERVAL: Final = 0.4
"""Seconds after which a face of a track is embedded again."""
_SAME_LOOK: Final = 0.8
"""Correlation of two thumbnails of a face, one after the other, below which it is embedded to check."""
_BRIEF: Final = 3
"""Frames up to which two parts may be seen together and still be one person."""
_FLEETING: Final = 2
"""Embedded faces up to which a part is taken for a disturbance of the part before it."""


@dataclass(frozen=True, slots=True)
class Links:
    """Cosines that hold faces of a video together; what they should be depends on the model.

    turn: similarity to a part's pooled embedding below which a face on the same geometric track belongs
    to another part. rejoin: similarity from which a face goes on with a part that was lost from sight
    a moment ago. The defaults are for models without calibration.
    """

    turn: float = 0.40
    rejoin: float = 0.60

    @classmethod
    def from_calibration(cls, calibration: ImpostorCalibration | None) -> "Links":
        """The similarities that 1 in 100 and 1 in 10,000 pairs of different people reach."""
        if calibration is None:
            return cls()
        return cls(calibration.threshold(1e-2)[0], calibration.threshold(1e-4)[0])


@dataclass(slots=True, eq=False)
class Part:
    """A stretch of a geometric track that looks like one person.

    total: (D,) float64 quality-weighted sum of the embeddings. weight: the sum of their weights. start, end:
    seconds. best_*: of its best face.
    """

    number: int
    chain: int
    start: float
    end: float
    total: NDArray[np.float64] | None = None
    weight: float = 0.0
    embedded: int = 0
    sightings: int = 0
    best_quality: float = -1.0
    best_time: float = 0.0
    best_box: Box | None = None

    @property
    def pooled(self) -> FloatArray | None:
        """(D,) float32 of L2 norm 1: the direction of the weighted sum. None before the first embedding."""
        if self.total is None:
            return None
        return np.asarray(self.total / max(float(np.linalg.norm(self.total)), 1e-12), dtype=np.float32)

    @property
    def coherence(self) -> float:
        """Length of the weighted mean embedding, in [0, 1]: 1 when all faces look the same.

        The pooled cosine to any vector times this is the weighted mean of the single faces' cosines to it.
        """
        return 0.0 if self.total is None else float(np.linalg.norm(self.total)) / self.weight

    def add(self, time: float, sighting: Sighting) -> None:
        """Count a sighting in."""
        self.end = time
        self.sightings += 1
        if sighting.quality > self.best_quality:
            self.best_quality, self.best_time, self.best_box = sighting.quality, time, sighting.box
        if sighting.vector is not None:
            weight = max(sighting.quality, 0.05)
            vector = sighting.vector.astype(np.float64) * weight
            self.total = vector if self.total is None else self.total + vector
            self.weight += weight
            self.embedded += 1


@dataclass(slots=True, eq=False)
class _Chain:
    current: Part | None = None
    seen: float = 0.0
    embedded_at: float = -np.inf
    suspect: bool = False
    look: FloatArray | None = None


class TrackBook:
    """Collects sightings into parts. Fed with the same sightings again, it gives the same parts."""

    def __init__(self, links: Links | None = None) -> None:
        self._links = links or Links()
        self.parts: dict[int, Part] = {}
        self.together: Counter[tuple[int, int]] = Counter()
        """Pairs of parts (smaller number first) with the number of frames in which both were seen."""
        self._chains: dict[int, _Chain] = {}
        self._recent: dict[int, Part] = {}
        self._count = 0

    def due(self, time: float, chains: Sequence[int], crops: RGBImage) -> NDArray[np.bool_]:
        """Which faces of a frame should be embedded: new ones, those that changed, and each now and then.

        chains: N track numbers. crops: (N, H, W, 3) uint8 aligned faces. Returns (N,) bool.
        """
        due = np.zeros(len(chains), dtype=np.bool_)
        for i, (number, crop) in enumerate(zip(chains, crops, strict=True)):
            chain = self._chains.setdefault(number, _Chain())
            look = _look(crop)
            due[i] = (
                chain.current is None
                or chain.suspect
                or chain.current.embedded < _FIRST
                or time - chain.embedded_at >= _INTERVAL
                or chain.look is None
                or float(look @ chain.look) < _SAME_LOOK
            )
            chain.look = look
        return due

    def add(self, time: float, sightings: Sequence[Sighting]) -> list[int]:
        """Count a frame's sightings in; their `part` is ignored. Returns the number of each one's part."""
        oldest = time - 2 * LIFESPAN
        self._chains = {n: c for n, c in self._chains.items() if c.current is None or c.seen >= oldest}
        self._recent = {n: part for n, part in self._recent.items() if part.end >= oldest}
        here = [self._chains.setdefault(sighting.chain, _Chain()) for sighting in sightings]
        kept = [self._kept(chain, sighting) for chain, sighting in zip(here, sightings, strict=True)]
        taken = {part.number for part in kept if part is not None}
        numbers: list[int] = []
        for chain, sighting, part in zip(here, sightings, kept, strict=True):
            if (
                part is not None and part.number in numbers
            ):  # its track was lost, went on as another, came back
                part = self._new(sighting, time)
            else:
                part = self._resembled(sighting, taken, part) or self._new(sighting, time)
            part.add(time, sighting)
            taken.add(part.number)
            self._recent[part.number] = part
            chain.current, chain.seen = part, time
            if sighting.vector is not None:
                chain.embedded_at = time
            numbers.append(part.number)
        ordered = sorted(numbers)
        self.together.update((a, b) for i, a in enumerate(ordered) for b in ordered[i + 1 :])
        return numbers

    def _kept(self, chain: _Chain, sighting: Sighting) -> Part | None:
        """The part that a face goes on with as its geometric track does; None for a new or changed face."""
        current = chain.current
        pooled = None if current is None else current.pooled
        if pooled is None or sighting.vector is None:
            return current
        chain.suspect = float(pooled @ sighting.vector) < self._links.turn
        return None if chain.suspect else current

    def _resembled(self, sighting: Sighting, taken: set[int], kept: Part | None) -> Part | None:
        """The part that a face looks most like: `kept`, or one that was seen a moment ago but is not in this
        frame, for two people who pass each other may exchange their geometric tracks."""
        if sighting.vector is None:
            return kept
        best, similarity = kept, self._links.rejoin
        if kept is not None and kept.pooled is not None:
            similarity = max(similarity, float(kept.pooled @ sighting.vector))
        for part in self._recent.values():
            pooled = part.pooled
            if part.number not in taken and pooled is not None:
                here = float(pooled @ sighting.vector)
                if here > similarity:
                    best, similarity = part, here
        return best

    def _new(self, sighting: Sighting, time: float) -> Part:
        self._count += 1
        part = Part(self._count, sighting.chain, time, time)
        self.parts[part.number] = part
        return part

    def forget(self, before: float) -> None:
        """Drop parts that were last seen before a time, for streams without an end."""
        gone = {number for number, part in self.parts.items() if part.end < before}
        if gone:
            self.parts = {number: part for number, part in self.parts.items() if number not in gone}
            self.together = Counter({p: n for p, n in self.together.items() if not gone & set(p)})

    def merged(self) -> tuple[dict[int, Part], dict[int, int]]:
        """The parts after fleeting ones (a blink, a blur) went to their neighbor, and part -> part after it.

        The parts are copies; the book can go on.
        """
        target = {number: number for number in self.parts}
        chains: dict[int, list[Part]] = {}
        for part in self.parts.values():
            chains.setdefault(part.chain, []).append(part)
        for parts in chains.values():
            lasting = [p for p in parts if p.embedded > _FLEETING]
            for part in parts:
                if lasting and part.embedded <= _FLEETING:
                    nearest = min(lasting, key=lambda p: _gap(p, part))
                    target[part.number] = nearest.number
        kept = {n: replace(p) for n, p in self.parts.items() if target[n] == n}
        for number, part in self.parts.items():
            if target[number] != number:
                # A disturbance is no evidence: its frames count, its embeddings don't.
                host = kept[target[number]]
                host.start, host.end = min(host.start, part.start), max(host.end, part.end)
                host.sightings += part.sightings
        return kept, target


def pairs_after(together: Mapping[tuple[int, int], int], target: Mapping[int, int]) -> dict[int, set[int]]:
    """Who was seen beside whom once parts were merged: part -> the parts that are other people.

    A few frames prove nothing: a track may go on for a moment after a cut before its face is found changed.
    """
    shared: Counter[tuple[int, int]] = Counter()
    for (a, b), frames in together.items():
        shared[target[a], target[b]] += frames
    others: dict[int, set[int]] = {}
    for (x, y), frames in shared.items():
        if x != y and frames > _BRIEF:
            others.setdefault(x, set()).add(y)
            others.setdefault(y, set()).add(x)
    return others


def _gap(a: Part, b: Part) -> float:
    return max(a.start - b.end, b.start - a.end, 0.0)


def _look(crop: RGBImage) -> FloatArray:
    """A face as (256,) float32 of mean 0 and norm 1, whose inner product is the correlation of two looks."""
    gray = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA)
    look = gray.astype(np.float32).ravel()
    look -= look.mean()
    return np.asarray(look / max(float(np.linalg.norm(look)), 1e-6), dtype=np.float32)
