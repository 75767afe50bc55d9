"""The image at the sizes that the networks want: pyramid levels for P-net, crops for R-net and O-net."""

from collections.abc import Iterator
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from app.pipeline.detect.boxes import CELL, STRIDE, Indices
from app.pipeline.types import FloatArray, RGBImage

Planes = NDArray[np.uint8]

_OVERSAMPLE = 2
"""A pyramid level is made from a halved image at least this many times as large: area resizing twice then
differs from once by less than the rounding to 8 bits, at a fraction of the cost."""

_CROP_OVERSAMPLE = 8
"""The same for crops, larger because the cut falls on whole pixels of the halved image."""


class Octave:
    """An image, and lazily its half, its quarter, … each half as large on both axes (area resized)."""

    def __init__(self, image: RGBImage, shrink: tuple[float, float] = (1.0, 1.0)) -> None:
        self.image = image
        self.shrink = shrink
        """(x, y) factor from pixels of the original to pixels of this octave."""

    @cached_property
    def half(self) -> "Octave":
        height, width = self.image.shape[:2]
        size = ((width + 1) // 2, (height + 1) // 2)
        image = np.asarray(cv2.resize(self.image, size, interpolation=cv2.INTER_AREA), np.uint8)
        return Octave(image, (self.shrink[0] * size[0] / width, self.shrink[1] * size[1] / height))

    def covering(self, width: float, height: float, oversample: float) -> "Octave":
        """The smallest octave that is at least `oversample` times width×height pixels of this one."""
        octave, have = self, self.image.shape
        while have[0] >= 2 * oversample * height and have[1] >= 2 * oversample * width:
            octave = octave.half
            have = octave.image.shape
        return octave


def pyramid_scales(height: int, width: int, min_face: float, factor: float) -> list[float]:
    """Scales of the pyramid: 12/min_face, then × factor while the shorter side stays at least 12 pixels."""
    scales, scale = [], CELL / min_face
    while min(height, width) * scale >= CELL:
        scales.append(scale)
        scale *= factor
    return scales


def level(original: Octave, scale: float) -> RGBImage:
    """The image at `scale`: ⌊side·scale + 1⌋ pixels on each axis, area resized."""
    height, width = original.image.shape[:2]
    size = (int(width * scale + 1), int(height * scale + 1))
    source = original.covering(size[0], size[1], _OVERSAMPLE).image
    return np.asarray(cv2.resize(source, size, interpolation=cv2.INTER_AREA), np.uint8)


def tiles(height: int, width: int, cells: int) -> Iterator[tuple[int, int, slice, slice]]:
    """Cut a level so that P-net sees at most cells×cells of its windows at a time, with the same answers.

    Yields (first row of windows, first column, rows of pixels, columns of pixels). Neighbors overlap by the
    ten pixels that their windows share; the work stays in the processor's cache and the memory bounded.
    """
    for first_row, rows in _cuts(height, cells):
        for first_column, columns in _cuts(width, cells):
            yield first_row, first_column, rows, columns


def _cuts(side: int, cells: int) -> Iterator[tuple[int, slice]]:
    total = (side - 1) // STRIDE - 4
    step = -(-total // -(-total // cells))
    for first in range(0, total, step):
        last = first + step >= total
        stop = side if last else first * STRIDE + step * STRIDE + CELL - STRIDE
        yield first, slice(first * STRIDE, stop)


def crops(original: Octave, boxes: FloatArray, side: int) -> tuple[Planes, Indices]:
    """Cut `boxes` out of the image, each area-resized to side×side.

    Boxes are truncated to whole pixels and clipped to the image; left and top count from 1. Returns the
    (M, 3, side, side) uint8 planes and the (M,) indices of the boxes that have an area inside the image.
    """
    height, width = original.image.shape[:2]
    whole = boxes.astype(np.int64)
    start = np.maximum(whole[:, :2], 1) - 1
    stop = np.minimum(whole[:, 2:], (width, height))
    inside = np.flatnonzero((stop > start).all(axis=1))
    out = np.empty((len(inside), side, side, 3), np.uint8)
    for crop, (x1, y1), (x2, y2) in zip(out, start[inside].tolist(), stop[inside].tolist(), strict=True):
        octave = original
        shrink = (x2 - x1) / side, (y2 - y1) / side
        while min(shrink) >= 2 * _CROP_OVERSAMPLE:
            octave = octave.half
            shrink = shrink[0] / 2, shrink[1] / 2
        if octave is not original:
            fx, fy = octave.shrink
            x1, x2, y1, y2 = round(x1 * fx), round(x2 * fx), round(y1 * fy), round(y2 * fy)
        cv2.resize(octave.image[y1:y2, x1:x2], (side, side), dst=crop, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(out.transpose(0, 3, 1, 2)), inside
