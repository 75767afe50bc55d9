"""Box rules of MTCNN. Boxes are (N, 4) float32: left, top, right, bottom in pixels of the image.

The rules follow the reference implementation facenet-pytorch (`models/utils/detect_face.py`); where it adds a
pixel to a width, so do we.
"""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from app.pipeline.types import FloatArray

Indices = NDArray[np.int64]

STRIDE, CELL = 2, 12
"""P-net looks through a 12×12 window that moves by 2 pixels."""


def cells_to_boxes(cells: Indices, scales: NDArray[np.float64]) -> FloatArray:
    """Image boxes of P-net windows, (N, 4): ⌊(2i+1)/scale⌋ to ⌊(2i+12)/scale⌋ on each axis.

    cells: (N, 2) column and row. scales: (N,) of the level that each was found on.
    """
    start = (cells * STRIDE).astype(np.float32)
    scale = scales.astype(np.float32)[:, None]
    return np.concatenate([np.floor((start + 1) / scale), np.floor((start + CELL) / scale)], axis=1)


def regress(boxes: FloatArray, offsets: FloatArray, *, plus: float) -> FloatArray:
    """Move each side by its offset times the box's size; `plus` is added to the sizes (0 or 1 by stage)."""
    size = boxes[:, 2:] - boxes[:, :2] + np.float32(plus)
    moved: FloatArray = boxes + offsets * np.concatenate([size, size], axis=1)
    return moved


def square(boxes: FloatArray) -> FloatArray:
    """The square of the longer side around each box's center."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True, initial=0)
    corner = boxes[:, :2] + size * np.float32(0.5) - side * np.float32(0.5)
    return np.concatenate([corner, corner + side], axis=1)


def nms(
    boxes: FloatArray,
    scores: FloatArray,
    threshold: float,
    *,
    overlap: Literal["union", "min"] = "union",
    groups: Indices | None = None,
) -> Indices:
    """Greedy non-maximum suppression; indices of the kept boxes, best score first.

    A box goes when its overlap with an already kept box is above `threshold`. overlap `union` is intersection
    over union; `min` is intersection over the smaller area, with sizes counted in whole pixels (+1), as the
    reference does in its last stage. Boxes of different `groups` never suppress each other.
    """
    if len(boxes) == 0:
        return np.empty(0, np.int64)
    if groups is not None:
        span = np.float64(boxes.max()) - min(boxes.min(), 0) + 1
        boxes = boxes + (groups * span)[:, None]
    if overlap == "min":
        return _nms_min(boxes, scores, threshold)
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    positive = scores - scores.min() + 1  # OpenCV drops scores that are not above its own limit
    return np.asarray(cv2.dnn.NMSBoxes(xywh.tolist(), positive.tolist(), 0.0, threshold), np.int64).reshape(
        -1
    )


def _nms_min(boxes: FloatArray, scores: FloatArray, threshold: float) -> Indices:
    """The `min` rule, which OpenCV lacks: an (N, N) overlap matrix, then one greedy pass over its rows."""
    order = np.argsort(-scores, kind="stable")
    lower, upper = boxes[order, :2], boxes[order, 2:] + 1
    area = np.prod(upper - lower, axis=1)
    sides = np.minimum(upper[:, None], upper) - np.maximum(lower[:, None], lower)
    inter = np.prod(np.maximum(sides, 0), axis=2)
    suppresses = inter > threshold * np.minimum(area[:, None], area)
    gone = np.zeros(len(order), bool)
    for i, row in enumerate(suppresses):
        if not gone[i]:
            gone[i + 1 :] |= row[i + 1 :]
    return order[~gone]
