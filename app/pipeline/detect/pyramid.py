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

_SIDE_LIMIT = 32_000
"""Longest side of a table of sums: `_looked_up` counts in 16 bits."""


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
        small = self.height * self.width <= _TABLE_LIMIT and max(image.shape) < _SIDE_LIMIT
        self._table = _table_of_sums(image) if small else None

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
        bands = table.take(rows.stop - top, axis=0) - table.take(rows.start - top, axis=0)
        sums = bands.take(columns.stop - left, axis=1) - bands.take(columns.start - left, axis=1)
        means = np.empty((3, len(rows), len(columns)), np.float32)
        np.multiply(sums.transpose(2, 0, 1), rows.weights[:, None], out=means, dtype=np.float32)
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
        elif len(inside):
            (x1, y1), (x2, y2) = first.transpose(1, 0, 2), last.transpose(1, 0, 2)
            sums = _looked_up(self._table, y2, x2)
            sums -= _looked_up(self._table, y1, x2)
            sums -= _looked_up(self._table, y2, x1)
            sums += _looked_up(self._table, y1, x1)
            weights = np.float32(1) / ((y2 - y1)[:, :, None] * (x2 - x1)[:, None]).astype(np.float32)
            np.multiply(sums.transpose(0, 3, 1, 2), weights[:, None], out=planes, dtype=np.float32)
        return planes, inside


def _table_of_sums(image: RGBImage) -> NDArray[np.int32]:
    """(H+1, W+1, 3) int32: the sum of all pixels above and to the left, by plane.

    Sums past 2³¹ wrap, and differences over windows of less than 8 million pixels are right all the same.
    """
    return np.asarray(cv2.integral(image, sdepth=cv2.CV_32S), np.int32)


def _looked_up(table: NDArray[np.int32], y: Indices, x: Indices) -> NDArray[np.int32]:
    """(M, n, n, 3) entries of the table in rows (M, n) and columns (M, n).

    OpenCV's nearest-neighbor remapping is the fastest gather of pixels there is here, and takes integers.
    """
    count, side = x.shape
    places = np.empty((count, side, side, 2), np.int16)
    places[..., 0] = x[:, None]
    places[..., 1] = y[:, :, None]
    found = cv2.remap(table, places.reshape(-1, side, 2), np.empty(0), cv2.INTER_NEAREST)
    return np.asarray(found, np.int32).reshape(count, side, side, 3)


def pyramid_scales(height: int, width: int, min_face: float, factor: float) -> list[float]:
    """Scales of the pyramid: 12/min_face, then × factor while the shorter side stays at least 12 pixels."""
    scales, scale = [], CELL / min_face
    while min(height, width) * scale >= CELL:
        scales.append(scale)
        scale *= factor
    return scales


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A part of a pyramid level. corner: column and row of its first P-net window in the level."""

    corner: tuple[int, int]
    rows: Bins
    columns: Bins


def level_tiles(height: int, width: int, scale: float, cells: int) -> Iterator[Tile]:
    """The tiles of the pyramid level at `scale`, which has ⌊side·scale + 1⌋ pixels on each axis.

    A tile holds at most cells×cells windows and overlaps the next one by the ten pixels that their windows
    share, so P-net answers as it would for the whole level, while its work stays in the processor's cache and
    its memory bounded.
    """
    rows = Bins.of(height, int(height * scale + 1))
    columns = Bins.of(width, int(width * scale + 1))
    for first_row, y in _cuts(len(rows), cells):
        for first_column, x in _cuts(len(columns), cells):
            yield Tile((first_column, first_row), rows[y], columns[x])


def _cuts(side: int, cells: int) -> Iterator[tuple[int, slice]]:
    """Even cuts of one axis of a level: (first window, pixels)."""
    total = (side - 1) // STRIDE - 4
    step = -(-total // -(-total // cells))
    for first in range(0, total, step):
        last = first + step >= total
        stop = side if last else (first + step) * STRIDE + CELL - STRIDE
        yield first, slice(first * STRIDE, stop)
