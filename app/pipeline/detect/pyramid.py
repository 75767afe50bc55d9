"""The image at the sizes that the networks want: pyramid levels for P-net, crops for R-net and O-net.

Both are area resizes as the reference does them (`interpolate(mode="area")`, adaptive average pooling):
output pixel i of n is the plain mean of the input pixels ⌊i·m/n⌋ to ⌈(i+1)·m/n⌉−1. From a table of sums
(Crow, 1984, doi:10.1145/800031.808600) each such mean takes four look-ups, whatever its size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from app.pipeline.detect.boxes import CELL, STRIDE, Indices
from app.pipeline.types import FloatArray, RGBImage

_TABLE_LIMIT = 4_000_000
"""Pixels that one table of sums may cover: 12 bytes each. Larger images get tables of their parts."""


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Which input pixels, start (included) to stop (excluded), each output pixel of one axis averages."""

    start: Indices
    stop: Indices

    @classmethod
    def of(cls, length: int, count: int) -> "Bins":
        """`count` bins over an axis of `length` pixels; they overlap where that does not divide evenly."""
        edges = np.arange(count + 1) * length
        return cls(edges[:-1] // count, (edges[1:] + (count - 1)) // count)

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, part: slice) -> "Bins":
        return Bins(self.start[part], self.stop[part])

    @property
    def weights(self) -> FloatArray:
        """One over the number of pixels in each bin."""
        return np.float32(1) / (self.stop - self.start).astype(np.float32)

    @property
    def span(self) -> slice:
        return slice(int(self.start[0]), int(self.stop[-1]))


class AreaSampler:
    """Area-resized views of one (H, W, 3) uint8 image, as float32 planes with values 0 to 255."""

    def __init__(self, image: RGBImage) -> None:
        self.image = image
        self.height, self.width = image.shape[:2]
        self._table = _table_of_sums(image) if self.height * self.width <= _TABLE_LIMIT else None

    def window(self, rows: Bins, columns: Bins) -> FloatArray:
        """(3, len(rows), len(columns)) means over the bins."""
        y, x = rows.span, columns.span
        table, top, left = self._table, 0, 0
        if table is None:
            if (y.stop - y.start) * (x.stop - x.start) > _TABLE_LIMIT and len(rows) > 1:
                middle = len(rows) // 2
                halves = self.window(rows[:middle], columns), self.window(rows[middle:], columns)
                return np.concatenate(halves, axis=1)
            table, top, left = _table_of_sums(self.image[y, x]), y.start, x.start
        bands = table.take(rows.stop - top, axis=1) - table.take(rows.start - top, axis=1)
        sums = bands.take(columns.stop - left, axis=2) - bands.take(columns.start - left, axis=2)
        means: FloatArray = np.multiply(sums, rows.weights[:, None], dtype=np.float32)
        means *= columns.weights
        return means

    def crops(self, boxes: FloatArray, side: int) -> tuple[FloatArray, Indices]:
        """Cut (N, 4) boxes out of the image, each resized to side×side.

        Boxes are truncated to whole pixels and clipped to the image; left and top count from 1. Returns the
        (M, 3, side, side) planes and the (M,) indices of the boxes that have an area inside the image.
        """
        whole = boxes.astype(np.int64)
        start = np.maximum(whole[:, :2], 1) - 1
        stop = np.minimum(whole[:, 2:], (self.width, self.height))
        inside = np.flatnonzero((stop > start).all(axis=1))
        start, size = start[inside], (stop - start)[inside]
        i = np.arange(side)
        first = start[:, :, None] + i * size[:, :, None] // side  # (M, 2, side), x then y
        last = start[:, :, None] - (-(i + 1) * size[:, :, None] // side)
        planes = np.empty((len(inside), 3, side, side), np.float32)
        if self._table is None:
            for plane, (x1, y1), (x2, y2) in zip(planes, first, last, strict=True):
                plane[:] = self.window(Bins(y1, y2), Bins(x1, x2))
            return planes, inside
        x1, x2 = first[:, 0, None, :], last[:, 0, None, :]
        y1, y2 = first[:, 1, :, None], last[:, 1, :, None]
        stride = self.width + 1
        corners = [(y * stride + x) for y, x in ((y2, x2), (y1, x2), (y2, x1), (y1, x1))]
        weights = np.float32(1) / ((y2 - y1) * (x2 - x1)).astype(np.float32)
        for channel, sums in enumerate(self._table.reshape(3, -1)):
            # "clip" spares NumPy a second pass for bounds; the corners are inside by construction.
            a, b, c, d = (sums.take(corner, mode="clip") for corner in corners)
            a -= b
            a -= c
            a += d
            np.multiply(a, weights, out=planes[:, channel], dtype=np.float32)
        return planes, inside


def _table_of_sums(image: RGBImage) -> NDArray[np.int32]:
    """(3, H+1, W+1) int32: the sum of all pixels above and to the left, by plane.

    Sums past 2³¹ wrap, and differences over windows of less than 8 million pixels are right all the same.
    """
    height, width = image.shape[:2]
    table = np.empty((3, height + 1, width + 1), np.int32)
    for plane, sums in zip(cv2.split(image), table, strict=True):
        cv2.integral(plane, sum=sums, sdepth=cv2.CV_32S)
    return table


def pyramid_scales(height: int, width: int, min_face: float, factor: float) -> list[float]:
    """Scales of the pyramid: 12/min_face, then × factor while the shorter side stays at least 12 pixels."""
    scales, scale = [], CELL / min_face
    while min(height, width) * scale >= CELL:
        scales.append(scale)
        scale *= factor
    return scales


def level_tiles(
    sampler: AreaSampler, scale: float, cells: int
) -> Iterator[tuple[tuple[int, int], FloatArray]]:
    """The pyramid level at `scale`, ⌊side·scale + 1⌋ pixels on each axis, tile by tile.

    Yields ((column, row) of its first P-net window, (3, h, w) planes). A tile holds at most cells×cells
    windows and overlaps the next one by the ten pixels that their windows share, so P-net answers as it would
    for the whole level, while its work stays in the processor's cache and its memory bounded.
    """
    rows = Bins.of(sampler.height, int(sampler.height * scale + 1))
    columns = Bins.of(sampler.width, int(sampler.width * scale + 1))
    for first_row, y in _cuts(len(rows), cells):
        for first_column, x in _cuts(len(columns), cells):
            yield (first_column, first_row), sampler.window(rows[y], columns[x])


def _cuts(side: int, cells: int) -> Iterator[tuple[int, slice]]:
    """Even cuts of one axis of a level: (first window, pixels)."""
    total = (side - 1) // STRIDE - 4
    step = -(-total // -(-total // cells))
    for first in range(0, total, step):
        last = first + step >= total
        stop = side if last else (first + step) * STRIDE + CELL - STRIDE
        yield first, slice(first * STRIDE, stop)
