"""Greedy non-maximum suppression: of boxes that overlap too much, the best stays."""

import math
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sphereid.faces.detect.mtcnn.boxes import Indices
from sphereid.faces.types import FloatArray

_FEW = 300
"""Up to so many boxes OpenCV, which compares each with all that stay, is faster than a look around."""

_ROUNDING = 1.001


def nms(
    boxes: FloatArray,
    scores: FloatArray,
    threshold: float,
    *,
    overlap: Literal["union", "min"] = "union",
    groups: Indices | None = None,
) -> Indices:
    """Greedy non-maximum suppression; indices of the kept boxes, best score first.

    boxes: (N, 4) of sides above 0. A box goes when its overlap with an already kept box is above `threshold`,
    in (0, 1). overlap `union` is intersection over union; `min` is intersection over the smaller area, with
    sizes counted in whole pixels (+1), as the reference does in its last stage. Boxes of different `groups`,
    at least 0, never suppress each other.
    """
    if len(boxes) == 0:
        return np.empty(0, np.int64)
    if groups is None:
        groups = np.zeros(len(boxes), np.int64)
    if overlap == "min":
        return _nms_min(_apart(boxes, groups), scores, threshold)
    return (_nms_few if len(boxes) <= _FEW else _nms_many)(boxes, scores, threshold, groups)


def _apart(boxes: FloatArray, groups: Indices) -> NDArray[np.float64]:
    """The boxes with those of different groups moved so far apart that they cannot overlap."""
    span = np.float64(boxes.max()) - min(boxes.min(), 0) + 2
    apart: NDArray[np.float64] = boxes + (groups * span)[:, None]
    return apart


def _nms_few(boxes: FloatArray, scores: FloatArray, threshold: float, groups: Indices) -> Indices:
    apart = _apart(boxes, groups)
    xywh = np.concatenate([apart[:, :2], apart[:, 2:] - apart[:, :2]], axis=1)
    positive = scores - scores.min() + 1  # OpenCV drops scores that are not above its own limit
    kept = cv2.dnn.NMSBoxes(xywh.tolist(), positive.tolist(), 0.0, threshold)
    return np.asarray(kept, np.int64).reshape(-1)


def _nms_many(boxes: FloatArray, scores: FloatArray, threshold: float, groups: Indices) -> Indices:
    """The same in time that grows with the number of overlaps instead of the square of that of boxes.

    Round by round those boxes stay that nothing better is left to suppress, and suppress others.
    """
    order = np.argsort(-scores, kind="stable")
    better, worse = _overlaps(boxes[order].astype(np.float64), threshold, groups[order])
    undecided, kept = np.ones(len(order), bool), np.zeros(len(order), bool)
    while undecided.any():
        stays = undecided.copy()
        stays[worse] = False
        kept |= stays
        undecided &= ~stays
        undecided[worse[stays[better]]] = False
        left = undecided[better] & undecided[worse]
        better, worse = better[left], worse[left]
    return order[kept]


def _overlaps(boxes: NDArray[np.float64], threshold: float, groups: Indices) -> tuple[Indices, Indices]:
    """All pairs of boxes of a group whose intersection over union is above the threshold: (M,) indices of the
    earlier boxes, (M,) of the later; a pair may come twice.

    Such boxes have longer sides within a factor of 1/threshold of each other, and centers nearer than
    (1 − threshold)/(1 + threshold) of the longest side, on each axis. So boxes go into classes of size, and
    are looked up among the 3×3 cells around them of a grid that fits their class: each box is entered with
    its own class and with the one below.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    step = -math.log(threshold) * _ROUNDING
    size_class = np.floor(np.log(size.max(axis=1)) / step).astype(np.int64)
    lowest = size_class.min() - 1
    center = boxes[:, :2] + size / 2

    def places(classes: Indices) -> Indices:
        cell = np.exp(step * (classes + 2)) * ((1 - threshold) / (1 + threshold) * _ROUNDING)
        x, y = np.floor(center / cell[:, None]).astype(np.int64).T
        numbers: Indices = (groups << 48) + ((classes - lowest) << 40) + (x << 20) + y
        return numbers

    own = places(size_class)
    entries = np.concatenate([own, places(size_class - 1)])
    order = np.argsort(entries, kind="stable")
    entries, entered = entries[order], order % len(boxes)
    pairs = []
    for column in (-1, 0, 1):
        first = np.searchsorted(entries, own + (column << 20) - 1, "left")
        count = np.searchsorted(entries, own + (column << 20) + 1, "right") - first
        before = np.cumsum(count) - count
        ones = np.repeat(np.arange(len(boxes)), count)
        others = entered[np.arange(len(ones)) + np.repeat(first - before, count)]
        pairs.append(np.stack([ones, others])[:, ones != others])
    earlier, later = np.sort(np.concatenate(pairs, axis=1), axis=0)
    sides = np.minimum(boxes[earlier, 2:], boxes[later, 2:]) - np.maximum(
        boxes[earlier, :2], boxes[later, :2]
    )
    inter = np.maximum(sides, 0).prod(axis=1)
    area = size.prod(axis=1)
    above = inter > threshold * (area[earlier] + area[later] - inter)
    return earlier[above], later[above]


def _nms_min(boxes: NDArray[np.float64], scores: FloatArray, threshold: float) -> Indices:
    """The `min` rule, which OpenCV lacks; one pass over what is left for each box that stays."""
    lower, upper = boxes[:, :2], boxes[:, 2:] + 1
    area = (upper - lower).prod(axis=1)
    left, kept = np.argsort(-scores, kind="stable"), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        sides = np.minimum(upper[best], upper[left]) - np.maximum(lower[best], lower[left])
        inter = np.maximum(sides, 0).prod(axis=1)
        left = left[inter <= threshold * np.minimum(area[best], area[left])]
    return np.array(kept)
