"""The three stages of MTCNN (Zhang et al., 2016, doi:10.1109/LSP.2016.2603342) on ONNX Runtime.

Rules and constants are those of facenet-pytorch; see `boxes` for the arithmetic.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from app.pipeline.detect.boxes import Indices, cells_to_boxes, nms, regress, square
from app.pipeline.detect.pyramid import AreaSampler, level_tiles, pyramid_scales
from app.pipeline.detect.weights import Net
from app.pipeline.types import FloatArray

_TILE_CELLS = 80
_RNET_BATCH, _ONET_BATCH = 128, 32
"""All crops of a stage go in one run, or in several of this many where a crowd would need much memory."""


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
        self._pnet, self._rnet, self._onet = (_session(graphs[n], threads) for n in ("pnet", "rnet", "onet"))

    def run(self, image: AreaSampler, min_face: float, min_score: float) -> Detections:
        """All faces of at least `min_face` pixels whose score is at least `min_score`, best score first."""
        return self.output(image, self.refine(image, self.propose(image, min_face)), min_score)

    def propose(self, image: AreaSampler, min_face: float) -> FloatArray:
        """P-net over the image pyramid: (N, 4) square candidates, best first, at most `max_candidates`."""
        scales = pyramid_scales(image.height, image.width, min_face, self._factor)
        if not scales:
            return np.empty((0, 4), np.float32)
        found = [self._scan(image, scale) for scale in scales]
        cells = np.concatenate([cells for cells, _ in found])
        heads = np.concatenate([heads for _, heads in found])
        levels = np.repeat(np.arange(len(found)), [len(cells) for cells, _ in found])
        boxes = cells_to_boxes(cells, np.array(scales)[levels])
        keep = nms(boxes, heads[:, 4], 0.5, groups=levels)
        boxes, heads = boxes[keep], heads[keep]
        keep = nms(boxes, heads[:, 4], 0.7)[: self._max_candidates]
        return square(regress(boxes[keep], heads[keep, :4], plus=0))

    def _scan(self, image: AreaSampler, scale: float) -> tuple[Indices, FloatArray]:
        """P-net on one level: (N, 2) columns and rows and (N, 5) heads of the windows above the threshold."""
        cells: list[Indices] = []
        values: list[FloatArray] = []
        for corner, tile in level_tiles(image, scale, _TILE_CELLS):
            heads = _infer(self._pnet, tile[None])[0]
            hits = np.flatnonzero(heads[4] >= self._limits[0])
            columns, rows = hits % heads.shape[2], hits // heads.shape[2]
            cells.append(np.stack([columns + corner[0], rows + corner[1]], axis=1))
            values.append(heads.reshape(5, -1).take(hits, axis=1).T)
        best = _top(np.concatenate(values), self._max_candidates)
        return np.concatenate(cells)[best], np.concatenate(values)[best]

    def refine(self, image: AreaSampler, boxes: FloatArray) -> FloatArray:
        """R-net on every candidate: the (M, 4) square boxes that survive, best first."""
        heads, inside = _infer_crops(self._rnet, image, boxes, 24, _RNET_BATCH)
        good = np.flatnonzero(heads[:, 4] > self._limits[1])
        boxes, heads = boxes[inside[good]], heads[good]
        keep = nms(boxes, heads[:, 4], 0.7)
        return square(regress(boxes[keep], heads[keep, :4], plus=1))

    def output(self, image: AreaSampler, boxes: FloatArray, min_score: float) -> Detections:
        """O-net on every survivor: final boxes, scores and landmarks, best first."""
        heads, inside = _infer_crops(self._onet, image, boxes, 48, _ONET_BATCH)
        scores = sigmoid(heads[:, 14])
        good = np.flatnonzero(scores >= min_score)
        boxes, heads, scores = boxes[inside[good]], heads[good], scores[good]
        size = boxes[:, 2:] - boxes[:, :2] + 1
        landmarks = heads[:, 4:14].reshape(-1, 2, 5).transpose(0, 2, 1)
        landmarks = landmarks * size[:, None] + boxes[:, None, :2] - 1
        boxes = regress(boxes, heads[:, :4], plus=1)
        keep = nms(boxes, heads[:, 14], 0.7, overlap="min")
        return Detections(boxes[keep], scores[keep], np.ascontiguousarray(landmarks[keep]))


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


def _infer_crops(
    session: ort.InferenceSession, image: AreaSampler, boxes: FloatArray, side: int, batch: int
) -> tuple[FloatArray, Indices]:
    """The heads for the boxes' crops, and the indices of the boxes that have one; see `AreaSampler.crops`."""
    heads = [np.empty((0, session.get_outputs()[0].shape[1]), np.float32)]
    indices = [np.empty(0, np.int64)]
    for first in range(0, len(boxes), batch):
        pixels, inside = image.crops(boxes[first : first + batch], side)
        if len(inside):
            heads.append(_infer(session, pixels))
            indices.append(inside + first)
    return np.concatenate(heads), np.concatenate(indices)


def _session(model: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait must not take the processor from other requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Shapes differ from call to call: remembered allocation plans would only pile up.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
