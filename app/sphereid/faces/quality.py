"""How usable a face is for recognition: a score and the reasons against it, from crop, box and landmarks."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from sphereid.faces.types import Face, FloatArray, Quality, RGBImage

_EPSILON = 1e-6
# An average adult head in millimeters, x to the image's right, y down, z towards the camera: 63 between the
# eyes, 65 from eyes to mouth, the nose 25 before their plane and at the height that faces of LFW have it.
_HEAD = np.array(
    [(-31.5, -34.5, 0), (31.5, -34.5, 0), (0, 0, 25), (-26, 30.5, 0), (26, 30.5, 0)], dtype=np.float64
)


@dataclass(frozen=True, slots=True)
class Scale:
    """Turns a measurement into a rating in [0, 1]: 0 at `worst`, 0.5 at `limit`, 1 at `ideal`.

    Linear between them and flat beyond. A rating below 0.5 is a reason against the face.
    """

    worst: float
    limit: float
    ideal: float

    def rate(self, values: FloatArray) -> FloatArray:
        """Ratings of the shape of `values`."""
        knots = np.array([self.worst, self.limit, self.ideal])
        ratings = np.array([0.0, 0.5, 1.0])
        order = slice(None) if self.worst < self.ideal else slice(None, None, -1)
        return np.asarray(np.interp(values, knots[order], ratings[order]), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class QualityThresholds:
    """One scale a reason code; the defaults let most portraits of LFW pass without a reason.

    too_small: shorter side of the box, pixels. blurred: `sharpness`. extreme_pose: `turn`, degrees.
    low_contrast: `contrast`. clipped: `outside`, the share of the box beyond the picture's edge.
    """

    too_small: Scale = Scale(worst=10, limit=32, ideal=80)
    blurred: Scale = Scale(worst=0.04, limit=0.12, ideal=0.3)
    extreme_pose: Scale = Scale(worst=80, limit=45, ideal=10)
    low_contrast: Scale = Scale(worst=0.03, limit=0.15, ideal=0.35)
    clipped: Scale = Scale(worst=0.4, limit=0.15, ideal=0.0)


def assess(
    faces: Sequence[Face],
    crops: RGBImage,
    image_size: tuple[int, ...],
    thresholds: QualityThresholds | None = None,
) -> list[Quality]:
    """The quality of each face of one image.

    faces: N faces in pixels of the image. crops: (N, H, W, 3) uint8 RGB, their aligned crops. image_size:
    (height, width) of the image. The score is the lowest of the five ratings, so that it is below 0.5 exactly
    where there is a reason.
    """
    if not faces:
        return []
    thresholds = thresholds or QualityThresholds()
    boxes = np.stack([face.box_xyxy for face in faces])
    landmarks = np.stack([face.landmarks for face in faces])
    grey = _centers(crops)
    measured = {
        "too_small": np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]),
        "blurred": sharpness(grey),
        "extreme_pose": turn(landmarks),
        "low_contrast": contrast(grey),
        "clipped": outside(boxes, image_size),
    }
    names = [field.name for field in fields(thresholds)]
    ratings = np.stack([getattr(thresholds, name).rate(measured[name]) for name in names], axis=1)
    return [
        Quality(
            float(row.min()), tuple(name for name, rating in zip(names, row, strict=True) if rating < 0.5)
        )
        for row in ratings
    ]


def _centers(crops: RGBImage) -> NDArray[np.uint8]:
    """(N, h, w) uint8 grey: the inner part of the crops, which hair and background seldom reach."""
    height, width = crops.shape[1:3]
    half = round(0.32 * height)
    rows, columns = slice(height // 4, round(0.96 * height)), slice(width // 2 - half, width // 2 + half)
    return np.stack([cv2.cvtColor(crop[rows, columns], cv2.COLOR_RGB2GRAY) for crop in crops])


def sharpness(grey: NDArray[np.uint8]) -> FloatArray:
    """How much of a crop's variation is its finest detail; 0 for a flat or wholly blurred one.

    The standard deviation of the Laplacian (its variance is the focus measure of Pech-Pacheco et al., ICPR
    2000) over that of the crop, so that contrast and brightness do not change it. Noise raises it.
    grey: (N, h, w) uint8. Returns (N,) float32.
    """
    detail = [cv2.meanStdDev(cv2.Laplacian(crop, cv2.CV_32F))[1].item() for crop in grey]
    whole = [cv2.meanStdDev(crop)[1].item() for crop in grey]
    return np.asarray(np.divide(detail, np.maximum(whole, 1.0)), dtype=np.float32)


def contrast(grey: NDArray[np.uint8]) -> FloatArray:
    """Range between the 5th and the 95th percentile of the brightness over 255. (N, h, w) to (N,)."""
    pixels = grey.reshape(len(grey), -1)
    low, high = round(0.05 * (pixels.shape[1] - 1)), round(0.95 * (pixels.shape[1] - 1))
    ordered = np.partition(pixels, (low, high), axis=1).astype(np.float32)
    return np.asarray((ordered[:, high] - ordered[:, low]) / 255, dtype=np.float32)


def turn(landmarks: FloatArray) -> FloatArray:
    """About how many degrees a face is turned away from the camera, in any direction; roll does not count.

    The linear map from an average head's landmarks to the picture's, by least squares under scaled
    orthography (the first step of POSIT, DeMenthon and Davis, IJCV 1995). Its two rows are the picture's axes
    as the head sees them, and the angle is that between their normal and the head's. A single head may be off
    by ten degrees.
    landmarks: (N, 5, 2) pixels. Returns (N,) float32, 0 to 180.
    """
    design = np.column_stack([_HEAD, np.ones(5)])
    points = landmarks.astype(np.float64).transpose(1, 0, 2).reshape(5, -1)
    axes = np.linalg.lstsq(design, points, rcond=None)[0][:3].reshape(3, -1, 2)
    across, down = axes[:, :, 0].T, axes[:, :, 1].T
    lengths = np.linalg.norm(across, axis=1) * np.linalg.norm(down, axis=1)
    facing = (across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]) / np.maximum(lengths, _EPSILON)
    return np.asarray(np.degrees(np.arccos(np.clip(facing, -1, 1))), dtype=np.float32)


def outside(boxes: FloatArray, image_size: tuple[int, ...]) -> FloatArray:
    """Share of each box's area that lies outside of the image. (N, 4) to (N,) float32 in [0, 1]."""
    height, width = image_size[:2]
    inside = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    seen = (inside[:, 2] - inside[:, 0]) * (inside[:, 3] - inside[:, 1])
    return np.asarray(1 - seen / np.maximum(area, _EPSILON), dtype=np.float32)
