"""MTCNN (Zhang et al., 2016) as a cascade of our own on ONNX Runtime."""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from app.pipeline.detect.boxes import cells_to_boxes, crop_resize, nms, regress, square
from app.pipeline.detect.graphs import load_graphs
from app.pipeline.types import Face, FloatArray, RGBImage


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """Settings of the detector.

    min_face: shortest side in pixels of a face worth finding; min_face_ratio: the same relative to the image's
    shorter side. The larger of the two counts, unless the caller of `detect` names a size.
    thresholds: face probabilities that the three stages ask for. factor: step of the image pyramid, in (0, 1).
    threads: ONNX Runtime threads of one call. cache_dir: where the converted networks are kept (None: memory).
    """

    min_face: int = 20
    min_face_ratio: float = 1 / 25
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)
    factor: float = 0.709
    threads: int = 1
    cache_dir: Path | None = None
    max_candidates: int = 2000


class MtcnnDetector:
    """Finds faces with MTCNN. Thread-safe: it holds nothing that a call changes."""

    def __init__(self, config: DetectorConfig | None = None) -> None:
        self.config = config or DetectorConfig()
        graphs = load_graphs(self.config.cache_dir)
        self._pnet, self._rnet, self._onet = (
            _session(graphs[net], self.config.threads) for net in ("pnet", "rnet", "onet")
        )

    def detect(
        self, image: RGBImage, *, min_face: int | None = None, min_score: float | None = None
    ) -> list[Face]:
        """Every face of an upright RGB image, largest first. See the port `FaceDetector`."""
        height, width = image.shape[:2]
        if min(height, width) < 12:
            return []
        if min_face is None:
            min_face = max(self.config.min_face, int(min(height, width) * self.config.min_face_ratio))
        threshold = self.config.thresholds[2] if min_score is None else min_score
        boxes, scores, landmarks = self._cascade(image, max(min_face, 12), threshold)
        sizes = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        return [
            Face(box_xyxy=boxes[i], score=float(scores[i]), landmarks=landmarks[i])
            for i in np.argsort(-sizes, kind="stable")
        ]

    def _cascade(
        self, image: RGBImage, min_face: int, threshold: float
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        boxes = self._propose(image, min_face)
        boxes = self._refine(image, boxes)
        return self._output(image, boxes, threshold)

    def _propose(self, image: RGBImage, min_face: int) -> FloatArray:
        height, width = image.shape[:2]
        limit = _logit(self.config.thresholds[0])
        scale = 12 / min_face
        found: list[tuple[FloatArray, FloatArray, FloatArray, NDArray[np.int64]]] = []
        while min(height, width) * scale >= 12:
            size = (int(width * scale + 1), int(height * scale + 1))
            level = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            planes = np.ascontiguousarray(level.transpose(2, 0, 1))[None]
            heads: FloatArray = self._pnet.run(None, {"pixels": planes})[0][0]
            rows, columns = np.nonzero(heads[4] >= limit)
            values = heads[:, rows, columns]
            boxes = cells_to_boxes(rows, columns, scale)
            keep = nms(boxes, values[4], 0.5)
            found.append((boxes[keep], values[4][keep], values[:4].T[keep], keep))
            scale *= self.config.factor
        if not found:
            return np.empty((0, 4), np.float32)
        boxes = np.concatenate([f[0] for f in found])
        scores = np.concatenate([f[1] for f in found])
        offsets = np.concatenate([f[2] for f in found])
        keep = nms(boxes, scores, 0.7)[: self.config.max_candidates]
        return square(regress(boxes[keep], offsets[keep], plus=0))

    def _refine(self, image: RGBImage, boxes: FloatArray) -> FloatArray:
        crops, inside = crop_resize(image, boxes, 24)
        if not len(inside):
            return np.empty((0, 4), np.float32)
        heads: FloatArray = self._rnet.run(None, {"pixels": crops})[0]
        good = np.flatnonzero(heads[:, 4] > _logit(self.config.thresholds[1]))
        boxes, heads = boxes[inside[good]], heads[good]
        keep = nms(boxes, heads[:, 4], 0.7)
        return square(regress(boxes[keep], heads[keep, :4], plus=1))

    def _output(
        self, image: RGBImage, boxes: FloatArray, threshold: float
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        crops, inside = crop_resize(image, boxes, 48)
        if not len(inside):
            return np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 5, 2), np.float32)
        heads: FloatArray = self._onet.run(None, {"pixels": crops})[0]
        good = np.flatnonzero(heads[:, 14] > _logit(threshold))
        boxes, heads = boxes[inside[good]], heads[good]
        size = boxes[:, 2:] - boxes[:, :2] + 1
        landmarks = heads[:, 4:14].reshape(-1, 2, 5).transpose(0, 2, 1)
        landmarks = landmarks * size[:, None] + boxes[:, None, :2] - 1
        boxes = regress(boxes, heads[:, :4], plus=1)
        keep = nms(boxes, heads[:, 14], 0.7, overlap="min")
        scores = 1 / (1 + np.exp(-heads[keep, 14]))
        return boxes[keep], scores, np.ascontiguousarray(landmarks[keep])


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _session(model: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
