"""Box rules of MTCNN. Boxes are (N, 4) float32: left, top, right, bottom in pixels of the image.

The rules follow the reference implementation facenet-pytorch (`models/utils/detect_face.py`); where it adds a
pixel to a width, so do we.
"""

import numpy as np
from numpy.typing import NDArray

from sphereid.faces.types import FloatArray

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
