"""The image at the sizes that the networks want: pyramid levels for P-net, crops for R-net and O-net.

Both are area resizes as the reference does them (`interpolate(mode="area")`, adaptive average pooling):
output pixel i of n is the plain mean of the input pixels ⌊i·m/n⌋ to ⌈(i+1)·m/n⌉−1. From a table of sums
(Crow, 1984, doi:10.1145/800031.808600) each such mean takes four look-ups, whatever its size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from sphereid.faces.detect.mtcnn.boxes import CELL, STRIDE, Indices
from sphereid.faces.types import FloatArray, RGBImage

_TABLE_LIMIT = 4_000_000
"""Pixels that one table of sums may cover: 12 bytes each. Larger images get tables of their parts."""

_SIDE_LIMIT = 32_000
"""Longest side of a table of sums: `_sums` counts in 16 bits."""


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Which input pixels each output pixel of one axis averages.

    edges: (2, n) starts (included) and stops (excluded). weights: (n,) one over the number of pixels.
    """

    edges: Indices
    weights: FloatArray

    @classmethod
    def of(cls, length: int, count: int) -> "Bins":
        """`count` bins over an axis of `length` pixels; they overlap where that does not divide evenly."""
        cuts = np.arange(count + 1) * length
        return cls.between(np.stack([cuts[:-1] // count, (cuts[1:] + (count - 1)) // count]))

    @classmethod
    def between(cls, edges: Indices) -> "Bins":
        return cls(edges, np.float32(1) / (edges[1] - edges[0]).astype(np.float32))

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, part: slice) -> "Bins":
        return Bins(self.edges[:, part], self.weights[part])

    @property
    def span(self) -> slice:
        return slice(int(self.edges[0, 0]), int(self.edges[1, -1]))


class AreaSampler:
    """Area-resized views of one (H, W, 3) uint8 image, as float32 planes with values 0 to 255."""

    def __init__(self, image: RGBImage) -> None:
        self.image = image
        self.height, self.width = image.shape[:2]
        self._corner = np.array((self.width, self.height) * 2)
        small = self.height * self.width <= _TABLE_LIMIT and max(image.shape) < _SIDE_LIMIT
        self._table = _table_of_sums(image) if small else None

    def window(self, rows: Bins, columns: Bins) -> FloatArray:
        """(3, len(rows), len(columns)) means over the bins."""
        table, row_edges, column_edges = self._table, rows.edges, columns.edges
        if table is None:
            y, x = rows.span, columns.span
            if (y.stop - y.start) * (x.stop - x.start) > _TABLE_LIMIT and len(rows) > 1:
                middle = len(rows) // 2
                halves = self.window(rows[:middle], columns), self.window(rows[middle:], columns)
                return np.concatenate(halves, axis=1)
            table = _table_of_sums(self.image[y, x])
            row_edges, column_edges = row_edges - y.start, column_edges - x.start
        bands = table.take(row_edges[1], axis=0)
        bands -= table.take(row_edges[0], axis=0)
        sums = bands.take(column_edges[1], axis=1)
        sums -= bands.take(column_edges[0], axis=1)
        return _planes(sums, rows.weights[:, None], columns.weights[None])

    def windows(self, boxes: FloatArray) -> tuple[Indices, Indices]:
        """The pixels of the image that (N, 4) boxes cover.

        Boxes are truncated to whole pixels and clipped to the image; left and top count from 1. Returns
        (M, 4) left, top and, excluded, right, bottom, and the (M,) indices of the boxes that have an area
        inside the image.
        """
        whole = boxes.astype(np.int64)
        whole[:, :2] -= 1
        np.minimum(np.maximum(whole, 0, out=whole), self._corner, out=whole)
        inside = np.flatnonzero((whole[:, 2] > whole[:, 0]) & (whole[:, 3] > whole[:, 1]))
        return whole[inside], inside

    def crops(self, windows: Indices, side: int) -> FloatArray:
        """(M, 3, side, side) planes: each of `windows` resized to side×side."""
        corner = windows[:, :2, None]
        cuts = (windows[:, 2:, None] - corner) * np.arange(side + 1)
        edges = np.empty((2, len(windows), 2, side), np.int32)  # start and stop, x and y
        edges[0] = corner + cuts[:, :, :-1] // side
        edges[1] = corner - (-cuts[:, :, 1:] // side)
        if self._table is None:
            planes = np.empty((len(windows), 3, side, side), np.float32)
            for i, plane in enumerate(planes):
                x, y = edges[:, i].transpose(1, 0, 2).astype(np.int64)
                plane[:] = self.window(Bins.between(y), Bins.between(x))
            return planes
        weights = np.float32(1) / (edges[1] - edges[0]).astype(np.float32)
        return _planes(_sums(self._table, edges), weights[:, 1, :, None], weights[:, 0, None, :])


def _table_of_sums(image: RGBImage) -> NDArray[np.int32]:
    """(H+1, W+1, 3) int32: the sum of all pixels above and to the left, by plane.

    Sums past 2³¹ wrap, and differences over windows of less than 8 million pixels are right all the same.
    """
    return np.asarray(cv2.integral(image, sdepth=cv2.CV_32S), np.int32)


def _sums(table: NDArray[np.int32], edges: NDArray[np.int32]) -> NDArray[np.int32]:
    """(M, n, n, 3) sums over the bins between `edges`, which are (2, M, 2, n): start and stop, x and y.

    OpenCV's nearest-neighbor remapping is the fastest gather of pixels there is here, and takes integers. The
    places that it wants are pairs of 16 bits, x before y: one number of 32 bits on little-endian machines.
    """
    _, count, _, side = edges.shape
    if count == 0:
        return np.empty((0, side, side, 3), np.int32)
    places = (edges[:, None, :, 1, :, None] << 16) | edges[None, :, :, 0, None, :]
    found = cv2.remap(table, places.view(np.int16).reshape(-1, side, 2), np.empty(0), cv2.INTER_NEAREST)
    corners = np.asarray(found, np.int32).reshape(4, count, side, side, 3)
    sums: NDArray[np.int32] = corners[3]
    sums -= corners[2]
    sums -= corners[1]
    sums += corners[0]
    return sums


def _planes(sums: NDArray[np.int32], rows: FloatArray, columns: FloatArray) -> FloatArray:
    """(..., h, w, 3) sums as (..., 3, h, w) planes, times weights: rows (..., h, 1), columns (..., 1, w)."""
    weights = rows * columns
    planes = np.empty((*sums.shape[:-3], 3, *weights.shape[-2:]), np.float32)
    by_plane = sums.astype(np.float32).swapaxes(-1, -2).swapaxes(-2, -3)
    np.multiply(by_plane, weights[..., None, :, :], out=planes)
    return planes


def pyramid_scales(height: int, width: int, min_face: float, factor: float) -> list[float]:
    """Scales of the pyramid: 12/min_face, then × factor while the shorter side stays at least 12 pixels."""
    scales, scale = [], CELL / min_face
    while min(height, width) * scale >= CELL:
        scales.append(scale)
        scale *= factor
    return scales


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A part of a pyramid level.

    corner: column and row of its first P-net window in the level. across: windows in a row of the tile.
    """

    corner: tuple[int, int]
    across: int
    rows: Bins
    columns: Bins


@lru_cache(maxsize=32)
def level_tiles(height: int, width: int, scale: float, cells: int) -> tuple[Tile, ...]:
    """The tiles of the pyramid level at `scale`, which has ⌊side·scale + 1⌋ pixels on each axis.

    A tile holds at most cells×cells windows and overlaps the next one by the ten pixels that their windows
    share, so P-net answers as it would for the whole level, while its work stays in the processor's cache and
    its memory bounded. FaceOwnerCache, for pictures of the same size follow each other in a video.
    """
    rows = Bins.of(height, int(height * scale + 1))
    columns = Bins.of(width, int(width * scale + 1))
    return tuple(
        Tile((first_column, first_row), _windows(len(columns[x])), rows[y], columns[x])
        for first_row, y in _cuts(len(rows), cells)
        for first_column, x in _cuts(len(columns), cells)
    )


def _windows(pixels: int) -> int:
    """How many P-net windows an axis of so many pixels has."""
    return (pixels - 1) // STRIDE - 4


def _cuts(side: int, cells: int) -> Iterator[tuple[int, slice]]:
    """Even cuts of one axis of a level: (first window, pixels)."""
    total = _windows(side)
    step = -(-total // -(-total // cells))
    for first in range(0, total, step):
        last = first + step >= total
        stop = side if last else (first + step) * STRIDE + CELL - STRIDE
        yield first, slice(first * STRIDE, stop)
