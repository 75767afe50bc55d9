"""The three stages of MTCNN (Zhang et al., 2016, doi:10.1109/LSP.2016.2603342) on ONNX Runtime.

Rules and constants are those of facenet-pytorch; see `boxes` for the arithmetic.
"""

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnxruntime as ort

from app.pipeline.detect.boxes import Indices, cells_to_boxes, nms, regress, square
from app.pipeline.detect.pyramid import AreaSampler, Tile, level_tiles, pyramid_scales
from app.pipeline.detect.weights import Net
from app.pipeline.types import FloatArray

_TILE_CELLS = 80
_RNET_BATCH, _ONET_BATCH = 128, 32
"""All crops of a stage go in one run a thread, or in several of this many where a crowd would need much
memory. Smaller runs would fit the processor's cache, but cost more to start than that gives."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


Hits = tuple[Indices, FloatArray]
"""P-net windows: (N, 2) columns and rows, (N, 5) heads."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """boxes: (N, 4) float32 pixels. scores: (N,) float32 in [0, 1]. landmarks: (N, 5, 2) float32 pixels."""

    boxes: FloatArray
    scores: FloatArray
    landmarks: FloatArray


class Cascade:
    """Proposals (P-net), their refinement (R-net), and the output with landmarks (O-net)."""

    def __init__(
        self,
        graphs: dict[Net, bytes],
        *,
        thresholds: tuple[float, float],
        factor: float,
        max_candidates: int,
        threads: int,
    ) -> None:
        self._limits = logit(thresholds[0]), logit(thresholds[1])
        self._factor = factor
        self._max_candidates = max_candidates
        self._pnet, self._rnet, self._onet = (_session(graphs[n]) for n in ("pnet", "rnet", "onet"))
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "detect") if threads > 1 else None

    def run(self, image: AreaSampler, min_face: float, min_score: float) -> Detections:
        """All faces of at least `min_face` pixels whose score is at least `min_score`, best score first."""
        return self.output(image, self.refine(image, self.propose(image, min_face)), min_score)

    def propose(self, image: AreaSampler, min_face: float) -> FloatArray:
        """P-net over the image pyramid: (N, 4) square candidates, best first, at most `max_candidates`."""
        scales = pyramid_scales(image.height, image.width, min_face, self._factor)
        if not scales:
            return np.empty((0, 4), np.float32)
        found = self._scan(image, scales)
        cells = np.concatenate([cells for cells, _ in found])
        heads = np.concatenate([heads for _, heads in found])
        levels = np.repeat(np.arange(len(found)), [len(cells) for cells, _ in found])
        boxes = cells_to_boxes(cells, np.array(scales)[levels])
        keep = nms(boxes, heads[:, 4], 0.5, groups=levels)
        boxes, heads = boxes[keep], heads[keep]
        keep = nms(boxes, heads[:, 4], 0.7)[: self._max_candidates]
        return square(regress(boxes[keep], heads[keep, :4], plus=0))

    def _scan(self, image: AreaSampler, scales: list[float]) -> list[Hits]:
        """P-net on each level: at most `max_candidates` windows above the threshold, in no order."""
        tiles = [
            (level, tile)
            for level, scale in enumerate(scales)
            for tile in level_tiles(image.height, image.width, scale, _TILE_CELLS)
        ]
        scanned = self._each(lambda item: self._scan_tile(image, item[1]), tiles)
        found: list[Hits] = []
        for level in range(len(scales)):
            parts = [hits for (of, _), hits in zip(tiles, scanned, strict=True) if of == level]
            cells, heads = (np.concatenate(each) for each in zip(*parts, strict=True))
            best = _top(heads, self._max_candidates)
            found.append((cells[best], heads[best]))
        return found

    def _scan_tile(self, image: AreaSampler, tile: Tile) -> Hits:
        """P-net on one tile: the windows above the threshold."""
        heads = _infer(self._pnet, image.window(tile.rows, tile.columns)[None])[0]
        hits = np.flatnonzero(heads[4] >= self._limits[0])
        rows, columns = np.divmod(hits, heads.shape[2])
        cells = np.stack([columns, rows], axis=1) + np.array(tile.corner)
        return cells, heads.reshape(5, -1).take(hits, axis=1).T

    def refine(self, image: AreaSampler, boxes: FloatArray) -> FloatArray:
        """R-net on every candidate: the (M, 4) square boxes that survive, best first."""
        heads, inside = self._infer_crops(self._rnet, image, boxes, 24, _RNET_BATCH)
        good = np.flatnonzero(heads[:, 4] > self._limits[1])
        boxes, heads = boxes[inside[good]], heads[good]
        keep = nms(boxes, heads[:, 4], 0.7)
        return square(regress(boxes[keep], heads[keep, :4], plus=1))

    def output(self, image: AreaSampler, boxes: FloatArray, min_score: float) -> Detections:
        """O-net on every survivor: final boxes, scores and landmarks, best first."""
        heads, inside = self._infer_crops(self._onet, image, boxes, 48, _ONET_BATCH)
        scores = sigmoid(heads[:, 14])
        good = np.flatnonzero(scores >= min_score)
        boxes, heads, scores = boxes[inside[good]], heads[good], scores[good]
        size = boxes[:, 2:] - boxes[:, :2] + 1
        landmarks = heads[:, 4:14].reshape(-1, 2, 5).transpose(0, 2, 1)
        landmarks = landmarks * size[:, None] + boxes[:, None, :2] - 1
        boxes = regress(boxes, heads[:, :4], plus=1)
        keep = nms(boxes, heads[:, 14], 0.7, overlap="min")
        return Detections(boxes[keep], scores[keep], np.ascontiguousarray(landmarks[keep]))

    def _infer_crops(
        self, session: ort.InferenceSession, image: AreaSampler, boxes: FloatArray, side: int, batch: int
    ) -> tuple[FloatArray, Indices]:
        """The heads for the boxes' crops, and the indices of the boxes that have one.

        See `AreaSampler.crops`.
        """

        def infer(first: int) -> tuple[FloatArray, Indices]:
            pixels, inside = image.crops(boxes[first : first + step], side)
            return (_infer(session, pixels) if len(inside) else nothing), inside + first

        nothing = np.empty((0, session.get_outputs()[0].shape[1]), np.float32)
        step = max(1, min(batch, -(-len(boxes) // self._threads)))
        parts = self._each(infer, range(0, len(boxes), step))
        heads = np.concatenate([nothing, *(part[0] for part in parts)])
        return heads, np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])

    def _each(self, work: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> list[ResultT]:
        """`work` on every item, in the order of the items; side by side where there are threads for it."""
        return list((self._pool.map if self._pool else map)(work, items))


def logit(probability: float) -> float:
    """ln(p/(1−p)): the networks' threshold on their own scale, for p in (0, 1)."""
    return math.log(probability / (1 - probability))


def sigmoid(logits: FloatArray) -> FloatArray:
    """1/(1+e^−x) without overflow."""
    values: FloatArray = np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * logits))
    return values


def _top(heads: FloatArray, count: int) -> Indices | slice:
    """Which rows hold the `count` highest logits (in no order); all of them when there are no more."""
    if len(heads) <= count:
        return slice(None)
    return np.argpartition(heads[:, 4], -count)[-count:]


def _infer(session: ort.InferenceSession, pixels: FloatArray) -> FloatArray:
    heads: FloatArray = session.run(None, {"pixels": pixels})[0]
    return heads


def _session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # The cascade spreads crops and tiles over threads itself: the operators are too small to be shared out.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Shapes differ from call to call: remembered allocation plans would only pile up.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
