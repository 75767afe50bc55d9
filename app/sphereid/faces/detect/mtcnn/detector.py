"""The detector that the rest of the service sees."""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sphereid.faces.detect.mtcnn.boxes import CELL
from sphereid.faces.detect.mtcnn.cascade import Cascade, Detections
from sphereid.faces.detect.mtcnn.graphs import load_graphs
from sphereid.faces.detect.mtcnn.pyramid import AreaSampler
from sphereid.faces.detect.mtcnn.suppression import nms
from sphereid.faces.types import Face, RGBImage

_FINEST_FACE = 32
_REDUCED_PIXELS = 1_000_000
"""Where the faces sought are all at least twice as large as the first, in an image larger than the second,
the cascade runs on a reduced copy: it finds the same faces in less time and memory."""

# A close-up gets a border of half its shorter side; faces of at least 0.4 of that side are sought, in a copy
# reduced to about 240 pixels.
_CLOSE_UP_FILL = 0.9
_CLOSE_UP_BORDER = 0.5
_CLOSE_UP_FACE = 0.4
_CLOSE_UP_SIDE = 240


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """Settings of the detector.

    min_face, min_face_ratio: the smallest face worth finding, as pixels and as a part of the image's shorter
    side; the larger of the two counts, unless the caller of `detect` names a size. thresholds: lowest face
    probabilities of the three stages, each in (0, 1). factor: step of the image pyramid, in (0, 1).
    close_ups: look again, with a border around the image, when there is no face or one that fills the frame.
    max_candidates: how many proposals a stage hands on at most. threads: processor threads for one call: its
    caller's and `threads` − 1 more, which all calls share; 1 is right where calls run side by side.
    cache_dir: where the converted networks are kept (None: in memory).
    """

    min_face: int = 32
    min_face_ratio: float = 1 / 32
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)
    factor: float = 0.709
    close_ups: bool = True
    max_candidates: int = 2000
    threads: int = 1
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        if not all(0 < threshold < 1 for threshold in self.thresholds):
            raise ValueError(f"thresholds must lie between 0 and 1, not {self.thresholds}")
        if not 0 < self.factor < 1:
            raise ValueError(f"factor must lie between 0 and 1, not {self.factor}")
        if not 0 <= self.min_face_ratio <= 1:
            raise ValueError(f"min_face_ratio must lie between 0 and 1, not {self.min_face_ratio}")
        if min(self.min_face, self.max_candidates, self.threads) < 1:
            raise ValueError("min_face, max_candidates and threads must be at least 1")


class MtcnnDetector:
    """Finds faces with MTCNN; satisfies `sphereid.faces.ports.FaceDetector`.

    Safe to call from several threads: a call changes nothing that another one sees.
    """

    def __init__(self, config: DetectorConfig | None = None) -> None:
        """Load the networks. Raises ModelError when the package that carries the weights is missing."""
        self.config = config or DetectorConfig()
        self._cascade = Cascade(
            load_graphs(self.config.cache_dir),
            thresholds=self.config.thresholds[:2],
            factor=self.config.factor,
            max_candidates=self.config.max_candidates,
            threads=self.config.threads,
        )

    def detect(
        self, image: RGBImage, *, min_face: int | None = None, min_score: float | None = None
    ) -> list[Face]:
        """Every face of an upright (H, W, 3) uint8 RGB image, largest first; an empty list if there is none.

        min_face: shortest side in pixels of a face worth finding; below 12 counts as 12, the networks' own
        limit. It bounds the search, so that a face may turn out a little smaller. min_score: lowest score to
        report, in [0, 1]. None takes the configured default.
        An image with a side under 12 pixels holds no face. Raises ValueError for any other kind of array.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected an (H, W, 3) uint8 RGB image, got {image.shape} {image.dtype}")
        short = min(image.shape[:2])
        if short < CELL:
            return []
        if min_face is None:
            min_face = max(self.config.min_face, round(short * self.config.min_face_ratio))
        if min_score is None:
            min_score = self.config.thresholds[2]
        min_face = max(min_face, CELL)
        image = np.ascontiguousarray(image)
        found = self._look(image, min_face, min_score)
        if self.config.close_ups and _fills_frame(found, image):
            found = _merged(self._look_closer(image, min_face, min_score), found)
        area = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
        return [
            Face(found.boxes[i], float(found.scores[i]), found.landmarks[i])
            for i in np.argsort(-area, kind="stable")
        ]

    def _look(self, image: RGBImage, min_face: float, min_score: float) -> Detections:
        height, width = image.shape[:2]
        excess = math.sqrt(height * width / _REDUCED_PIXELS)
        shrink = _whole(min(excess, min_face / _FINEST_FACE), image)
        found = self._cascade.run(AreaSampler(_reduced(image, shrink)), min_face / shrink, min_score)
        return _moved(found, shrink, (shrink - 1) / 2)

    def _look_closer(self, image: RGBImage, min_face: float, min_score: float) -> Detections:
        """Look for faces that fill the frame: the networks want to see some of what is around a face.

        A reduced copy is enough to find them, so this costs the same for every size of photograph.
        """
        short = min(image.shape[:2])
        shrink = _whole(short / _CLOSE_UP_SIDE, image)
        small = _reduced(image, shrink)
        border = round(short / shrink * _CLOSE_UP_BORDER)
        sides = (border,) * 4
        framed = cv2.copyMakeBorder(small, *sides, borderType=cv2.BORDER_CONSTANT, value=(127,) * 3)
        smallest = max(min_face, short * _CLOSE_UP_FACE) / shrink
        sampler = AreaSampler(np.asarray(framed, np.uint8))
        found = self._cascade.run(sampler, max(smallest, CELL), min_score)
        return _moved(found, shrink, (shrink - 1) / 2 - border * shrink)


def _whole(ratio: float, image: RGBImage) -> int:
    """`ratio` as a whole number of at least 1 that leaves the reduced image large enough to look at."""
    height, width = image.shape[:2]
    limit: int = min(height, width) // CELL
    return max(1, min(int(ratio), limit))


def _reduced(image: RGBImage, shrink: int) -> RGBImage:
    """The means of shrink×shrink blocks of pixels."""
    if shrink == 1:
        return image
    height, width = (side // shrink for side in image.shape[:2])
    blocks = image[: height * shrink, : width * shrink]
    return np.asarray(cv2.resize(blocks, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _fills_frame(found: Detections, image: RGBImage) -> bool:
    """Whether there is no face, or one nearly as large as the image: its landmarks are then poor."""
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]) / np.array(image.shape[1::-1], np.float32)
    return not len(sides) or bool(sides.max() > _CLOSE_UP_FILL)


def _merged(first: Detections, second: Detections) -> Detections:
    """All of `first`, and of `second` what does not lie over one of those."""
    boxes = np.concatenate([first.boxes, second.boxes])
    priority = np.concatenate([first.scores + 1, second.scores])
    keep = nms(boxes, priority, 0.5, overlap="min")
    return Detections(
        boxes[keep],
        np.concatenate([first.scores, second.scores])[keep],
        np.concatenate([first.landmarks, second.landmarks])[keep],
    )


def _moved(found: Detections, stretch: float, shift: float) -> Detections:
    factor, offset = np.float32(stretch), np.float32(shift)
    return Detections(found.boxes * factor + offset, found.scores, found.landmarks * factor + offset)
