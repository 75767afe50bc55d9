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


def cells_to_boxes(rows: Indices, columns: Indices, scale: float) -> FloatArray:
    """Image boxes of P-net cells: ⌊(2i+1)/scale⌋ to ⌊(2i+12)/scale⌋ on each axis; (N, 4)."""
    start = np.stack([columns, rows], axis=1).astype(np.float32) * STRIDE
    s = np.float32(scale)
    return np.concatenate([np.floor((start + 1) / s), np.floor((start + CELL) / s)], axis=1)


def regress(boxes: FloatArray, offsets: FloatArray, *, plus: float) -> FloatArray:
    """Move each side by its offset times the box's size; `plus` is added to the sizes (0 or 1 by stage)."""
    size = boxes[:, 2:] - boxes[:, :2] + np.float32(plus)
    return boxes + offsets * np.concatenate([size, size], axis=1)


def square(boxes: FloatArray) -> FloatArray:
    """The square of the longer side around each box's centre."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + size * 0.5 - side * 0.5
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
    order = np.argsort(-scores, kind="stable")
    plus = np.float32(overlap == "min")
    sorted_boxes = boxes[order]
    lower, upper = sorted_boxes[:, :2], sorted_boxes[:, 2:] + plus
    areas = np.prod(upper - lower, axis=1)
    sorted_groups = None if groups is None else groups[order]
    kept: list[int] = []
    alive = np.arange(len(order))
    while alive.size:
        best, rest = alive[0], alive[1:]
        kept.append(int(best))
        sides = np.minimum(upper[best], upper[rest]) - np.maximum(lower[best], lower[rest])
        np.maximum(sides, 0, out=sides)
        inter = sides[:, 0] * sides[:, 1]
        if overlap == "min":
            whole = np.minimum(areas[best], areas[rest])
        else:
            whole = areas[best] + areas[rest] - inter
        keep = inter <= threshold * whole
        if sorted_groups is not None:
            keep |= sorted_groups[rest] != sorted_groups[best]
        alive = rest[keep]
    return order[kept]


def crop_resize(image: NDArray[np.uint8], boxes: FloatArray, side: int) -> tuple[NDArray[np.uint8], Indices]:
    """Cut the boxes out of `image` and resize each to side×side by area.

    Boxes are truncated to whole pixels and clipped to the image; their left and top count from 1. Returns the
    (M, 3, side, side) uint8 planes and the (M,) indices of the boxes that have an area inside the image.
    """
    height, width = image.shape[:2]
    whole = boxes.astype(np.int64)
    x1, y1 = np.maximum(whole[:, 0], 1) - 1, np.maximum(whole[:, 1], 1) - 1
    x2, y2 = np.minimum(whole[:, 2], width), np.minimum(whole[:, 3], height)
    inside = np.flatnonzero((x2 > x1) & (y2 > y1))
    crops = np.empty((len(inside), side, side, 3), np.uint8)
    for crop, i in zip(crops, inside, strict=True):
        cv2.resize(image[y1[i] : y2[i], x1[i] : x2[i]], (side, side), dst=crop, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(crops.transpose(0, 3, 1, 2)), inside
