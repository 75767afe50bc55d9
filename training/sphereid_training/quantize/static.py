"""Ranges of a network's activations, measured on faces, the int8 model that they give, and its speed."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from sphereid.faces.embed import OnnxEmbedder, normalize
from sphereid.faces.manifest import Manifest
from sphereid.faces.quantization import qdq

FloatArray = NDArray[np.float32]

BATCH = 8

LONGEST = 4.0
"""Times the median length of an embedding, from which on a face is not calibrated on."""


def quantize(plain: onnx.ModelProto, crops: NDArray[np.uint8], manifest: Manifest) -> bytes:
    """int8 ONNX bytes of a prepared graph. crops: (N, H, W, 3) uint8 faces to calibrate the ranges on.

    Raises ModelError when the graph can't be quantized.
    """
    return qdq.quantize(plain, measure_ranges(plain, crops, manifest), manifest)


def measure_ranges(
    plain: onnx.ModelProto, crops: NDArray[np.uint8], manifest: Manifest
) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of each activation over (N, H, W, 3) uint8 faces; those that the network can
    make nothing of are left out (`typical`).

    Raises ModelError when the graph can't be run.
    """
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    with tempfile.TemporaryDirectory() as scratch, qdq.quantizing(manifest):
        before, augmented = (Path(scratch) / f"{name}.onnx" for name in ("plain", "augmented"))
        onnx.save(plain, before)
        calibrator = create_calibrator(
            before,
            list(qdq.OPERATORS),
            augmented_model_path=str(augmented),
            calibrate_method=CalibrationMethod.MinMax,
        )
        faces = crops[typical(plain, crops, manifest)]
        calibrator.collect_data(_Faces(faces, manifest, plain.graph.input[0].name))
        found = calibrator.compute_data()
    return {name: (data.lowest.item(), data.highest.item()) for name, data in found.items()}


def typical(plain: onnx.ModelProto, crops: NDArray[np.uint8], manifest: Manifest) -> NDArray[np.bool_]:
    """(N,) which of (N, H, W, 3) crops give an embedding of at most `LONGEST` times the median length.

    Some faces, such as those cut off by a black edge, can drive a network's values up a hundredfold. Ranges
    that hold those leave a few steps for all other faces.
    """
    session = ort.InferenceSession(plain.SerializeToString(), providers=["CPUExecutionProvider"])
    name = plain.graph.input[0].name
    lengths = np.concatenate(
        [
            np.linalg.norm(session.run(None, {name: pixels_of(crops[i : i + BATCH], manifest)})[0], axis=1)
            for i in range(0, len(crops), BATCH)
        ]
    )
    return np.asarray(lengths <= LONGEST * np.median(lengths))


class _Faces:
    """Calibration data as the quantizer wants it: one batch of pixels a call, then None."""

    def __init__(self, crops: NDArray[np.uint8], manifest: Manifest, name: str) -> None:
        self._batches = self._make(crops, manifest, name)

    def _make(
        self, crops: NDArray[np.uint8], manifest: Manifest, name: str
    ) -> Iterator[dict[str, FloatArray]]:
        for start in range(0, len(crops) - BATCH + 1, BATCH):
            yield {name: pixels_of(crops[start : start + BATCH], manifest)}

    def get_next(self) -> dict[str, FloatArray] | None:
        return next(self._batches, None)


def pixels_of(crops: NDArray[np.uint8], manifest: Manifest) -> FloatArray:
    """(N, 3, H, W) float32 as the model takes (N, H, W, 3) uint8 crops."""
    pixels = np.empty((len(crops), *manifest.input[1:]), np.float32)
    normalize(crops, manifest, pixels)
    return pixels


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds for a batch of eight crops, the fastest of many runs that took turns.

    One thread is timed by the processor time it takes, which other programs disturb little; several are timed
    by the clock.
    """

    threads: int
    fp32: float
    int8: float

    @property
    def speedup(self) -> float:
        """How many times as fast int8 is."""
        return self.fp32 / self.int8


def measure_speed(
    fp32: bytes, int8: bytes, manifest: Manifest, crops: NDArray[np.uint8], *, threads: int, rounds: int = 40
) -> Timing:
    """Time the served path, normalization and flip rule included, on eight crops with so many threads."""
    settings: dict[str, Any] = {"providers": "cpu", "threads": threads}
    embedders = [OnnxEmbedder(model, manifest, **settings) for model in (fp32, int8)]
    batch = crops[:8]
    clock = time.process_time if threads == 1 else time.perf_counter
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for index, embedder in enumerate(embedders):
            start = clock()
            embedder.embed(batch)
            best[index] = min(best[index], clock() - start)
    return Timing(threads, 1000 * best[0], 1000 * best[1])
