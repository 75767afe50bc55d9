"""From an fp32 ONNX model to an int8 one: static quantization with quantize/dequantize pairs (QDQ).

Convolutions run on 8-bit activations (unsigned, one scale a tensor) and 7-bit weights (signed, one scale a
channel). Seven bits, because processors without VNNI add two 8-bit products in 16 bits, which saturate: full
8-bit weights made cosines to the fp32 embedding fall from 0.995 to 0.93 on such a one (docs/experiments.md).
"""

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper
from sphereid.faces.embed import OnnxEmbedder, normalize
from sphereid.faces.manifest import Manifest

from sphereid_training.errors import TrainingError
from sphereid_training.export.prelu import prelu_as_maximum
from sphereid_training.quantize.graph import in_float, rewrite

FloatArray = NDArray[np.float32]

OPERATORS = ("Conv", "Relu", "Add", "Mul", "MaxPool", "AveragePool", "GlobalAveragePool")
"""What is quantized. The fully connected layer costs little time and much accuracy; it stays in float."""

BATCH = 8

LONGEST = 4.0
"""Times the median length of an embedding, from which on a face is not calibrated on."""


def prepare(model: bytes, manifest: Manifest) -> onnx.ModelProto:
    """The float graph that is quantized: the model's numbers, in the operators that int8 runs fast.

    Constants and batch norms are folded, PReLU is a maximum, and `quantize_graph.rewrite` has its way.
    Raises TrainingError when the graph can't be read.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as scratch, _quantizing(manifest):
        source, folded = (Path(scratch) / f"{name}.onnx" for name in ("source", "folded"))
        plain = prelu_as_maximum(onnx.load_from_string(model))
        source.write_bytes(plain.SerializeToString())
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        made = rewrite(onnx.load(folded), mean=manifest.mean, scale=manifest.scale)
        del made.metadata_props[:]
        made.metadata_props.extend(plain.metadata_props)
        return made


def quantize(plain: onnx.ModelProto, crops: NDArray[np.uint8], manifest: Manifest) -> bytes:
    """int8 ONNX bytes of a prepared graph. crops: (N, H, W, 3) uint8 faces to calibrate the ranges on; those
    that the network can make nothing of are left out (`typical`).

    Raises TrainingError when the graph can't be quantized.
    """
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    with tempfile.TemporaryDirectory() as scratch, _quantizing(manifest):
        before, after = (Path(scratch) / f"{name}.onnx" for name in ("plain", "int8"))
        onnx.save(plain, before)
        crops = crops[typical(plain, crops, manifest)]
        quantize_static(
            str(before),
            str(after),
            _Faces(crops, manifest, plain.graph.input[0].name),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            nodes_to_exclude=in_float(plain),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        made = onnx.load(after)
    helper.set_model_props(
        made, {**{p.key: p.value for p in plain.metadata_props}, "precision": "int8", "of": manifest.sha256}
    )
    return bytes(made.SerializeToString())


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


@contextmanager
def _quantizing(manifest: Manifest) -> Iterator[None]:
    """Errors of the quantizer as ours, and without its advice to preprocess, which it gives even after it was
    done."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    except Exception as error:  # the tool's exceptions share no base
        raise TrainingError(
            f"model {manifest.name} cannot be quantized: {str(error).splitlines()[0]}"
        ) from error
    finally:
        root.setLevel(level)


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
