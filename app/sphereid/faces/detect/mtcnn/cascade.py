"""The three stages of MTCNN (Zhang et al., 2016, doi:10.1109/LSP.2016.2603342) on ONNX Runtime.

Rules and constants are those of facenet-pytorch; see `boxes` for the arithmetic.
"""

import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

import numpy as np
import onnxruntime as ort

from sphereid.faces.detect.mtcnn.boxes import Indices, cells_to_boxes, regress, square
from sphereid.faces.detect.mtcnn.helper import Helper
from sphereid.faces.detect.mtcnn.pyramid import AreaSampler, level_tiles, pyramid_scales
from sphereid.faces.detect.mtcnn.suppression import nms
from sphereid.faces.detect.mtcnn.weights import Net
from sphereid.faces.types import FloatArray

_TILE_CELLS = 80
_WORTH_A_HELPER = 5_000
"""Values of an input from which on handing it to another thread costs less than dealing with it: 3 crops of
R-net, 1 of O-net, a level of the pyramid of 41×41 pixels."""

_CROPS: dict[Net, tuple[int, int, int]] = {"rnet": (24, 128, 5), "onet": (48, 32, 15)}
"""Side of a crop, most crops in one run, outputs for a crop. All crops of a stage go in one run a thread, or
in several where a crowd would need much memory. Smaller runs would fit the processor's cache, but cost more
to start than that gives."""

ResultT = TypeVar("ResultT")

Nets = dict[Net, ort.InferenceSession]

Hits = tuple[Indices, FloatArray]
"""P-net windows of a tile: (N,) numbers of the windows, counted row by row, and their (5, N) heads."""


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
        self._threads = threads
        self._nets = _sessions(graphs)
        self._idle: SimpleQueue[Helper[Nets]] = SimpleQueue()
        for _ in range(threads - 1):
            self._idle.put(Helper(_sessions(graphs)))

    def run(self, image: AreaSampler, min_face: float, min_score: float) -> Detections:
        """All faces of at least `min_face` pixels whose score is at least `min_score`, best score first."""
        return self.output(image, self.refine(image, self.propose(image, min_face)), min_score)

    def propose(self, image: AreaSampler, min_face: float) -> FloatArray:
        """P-net over the image pyramid: (N, 4) square candidates, best first, at most `max_candidates`."""
        scales = pyramid_scales(image.height, image.width, min_face, self._factor)
        if not scales:
            return np.empty((0, 4), np.float32)
        cells, heads, levels = self._scan(image, scales)
        boxes = cells_to_boxes(cells, np.array(scales)[levels])
        keep = nms(boxes, heads[:, 4], 0.5, groups=levels)
        boxes, heads = boxes[keep], heads[keep]
        keep = nms(boxes, heads[:, 4], 0.7)[: self._max_candidates]
        return square(regress(boxes[keep], heads[keep, :4], plus=0))

    def _scan(self, image: AreaSampler, scales: list[float]) -> tuple[Indices, FloatArray, Indices]:
        """P-net on each level: at most `max_candidates` windows above the threshold of each, in no order.

        Returns (N, 2) columns and rows, (N, 5) heads, (N,) levels.
        """
        by_level = [level_tiles(image.height, image.width, scale, _TILE_CELLS) for scale in scales]
        tiles = [tile for level in by_level for tile in level]
        scanned = self._each(len(tiles), lambda i: image.window(tiles[i].rows, tiles[i].columns), self._hits)
        tile_of = np.repeat(np.arange(len(tiles)), [len(hits) for hits, _ in scanned])
        heads = np.concatenate([heads for _, heads in scanned], axis=1).T
        levels = np.repeat(np.arange(len(scales)), [len(level) for level in by_level])[tile_of]
        places = np.array([(*tile.corner, tile.across) for tile in tiles])[tile_of]
        rows, columns = np.divmod(np.concatenate([hits for hits, _ in scanned]), places[:, 2])
        cells = places[:, :2] + np.stack([columns, rows], axis=1)
        if len(levels) > self._max_candidates:
            best = _top_of_each(levels, heads[:, 4], self._max_candidates)
            cells, heads, levels = cells[best], heads[best], levels[best]
        return cells, heads, levels

    def _hits(self, nets: Nets, pixels: FloatArray) -> Hits:
        """P-net on one tile: the windows above the threshold."""
        heads = _infer(nets["pnet"], pixels[None]).reshape(5, -1)
        hits = np.flatnonzero(heads[4] >= self._limits[0])
        return hits, heads.take(hits, axis=1)

    def refine(self, image: AreaSampler, boxes: FloatArray) -> FloatArray:
        """R-net on every candidate: the (M, 4) square boxes that survive, best first."""
        heads, inside = self._infer_crops("rnet", image, boxes)
        good = np.flatnonzero(heads[:, 4] > self._limits[1])
        boxes, heads = boxes[inside[good]], heads[good]
        keep = nms(boxes, heads[:, 4], 0.7)
        return square(regress(boxes[keep], heads[keep, :4], plus=1))

    def output(self, image: AreaSampler, boxes: FloatArray, min_score: float) -> Detections:
        """O-net on every survivor: final boxes, scores and landmarks, best first."""
        heads, inside = self._infer_crops("onet", image, boxes)
        scores = sigmoid(heads[:, 14])
        good = np.flatnonzero(scores >= min_score)
        boxes, heads, scores = boxes[inside[good]], heads[good], scores[good]
        size = boxes[:, 2:] - boxes[:, :2] + 1
        landmarks = heads[:, 4:14].reshape(-1, 2, 5).transpose(0, 2, 1)
        landmarks = landmarks * size[:, None] + boxes[:, None, :2] - 1
        boxes = regress(boxes, heads[:, :4], plus=1)
        keep = nms(boxes, heads[:, 14], 0.7, overlap="min")
        return Detections(boxes[keep], scores[keep], np.ascontiguousarray(landmarks[keep]))

    def _infer_crops(self, net: Net, image: AreaSampler, boxes: FloatArray) -> tuple[FloatArray, Indices]:
        """The heads for the boxes' crops, and the indices of the boxes that lie in the image."""
        side, batch, outputs = _CROPS[net]
        windows, inside = image.windows(boxes)
        step = max(1, min(batch, -(-len(windows) // self._threads)))
        parts = self._each(
            -(-len(windows) // step),
            lambda i: image.crops(windows[i * step : (i + 1) * step], side),
            lambda nets, pixels: _infer(nets[net], pixels),
        )
        return np.concatenate([np.empty((0, outputs), np.float32), *parts]), inside

    def _each(
        self, count: int, make: Callable[[int], FloatArray], work: Callable[[Nets, FloatArray], ResultT]
    ) -> list[ResultT]:
        """`work` on each of `count` inputs, in their order; `make` makes an input by its number.

        The caller's thread makes them all, for that is many short steps of Python in which threads would only
        wait for each other. It does the work too, but where a helper is idle leaves it to that one.
        """
        results: list[ResultT | Future[ResultT]] = []
        for i in range(count):
            made = make(i)
            worth = i < count - 1 and made.size >= _WORTH_A_HELPER
            helper = self._idle_helper() if worth else None
            if helper is None:
                results.append(work(self._nets, made))
            else:
                future = helper.submit(work, helper.tools, made)
                future.add_done_callback(partial(self._put_back, helper))
                results.append(future)
        return [each.result() if isinstance(each, Future) else each for each in results]

    def _idle_helper(self) -> Helper[Nets] | None:
        try:
            return self._idle.get_nowait()
        except Empty:
            return None

    def _put_back(self, helper: Helper[Nets], _: object) -> None:
        self._idle.put(helper)


def logit(probability: float) -> float:
    """ln(p/(1−p)): the networks' threshold on their own scale, for p in (0, 1)."""
    return math.log(probability / (1 - probability))


def sigmoid(logits: FloatArray) -> FloatArray:
    """1/(1+e^−x) without overflow."""
    values: FloatArray = np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * logits))
    return values


def _top_of_each(groups: Indices, scores: FloatArray, count: int) -> Indices:
    """Which elements are among the `count` highest of their group (in no order)."""
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    return np.concatenate(
        [
            each if len(each) <= count else each[np.argpartition(scores[each], -count)[-count:]]
            for each in members
        ]
    )


def _infer(session: ort.InferenceSession, pixels: FloatArray) -> FloatArray:
    heads: FloatArray = session.run(None, {"pixels": pixels})[0]
    return heads


def _sessions(graphs: dict[Net, bytes]) -> Nets:
    options = ort.SessionOptions()
    # The cascade spreads crops and tiles over threads itself: the operators are too small to be shared out.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Shapes differ from call to call: remembered allocation plans would only pile up.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return {
        net: ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for net, model in graphs.items()
    }
