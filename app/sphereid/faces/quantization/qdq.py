"""From an fp32 ONNX model to an int8 one: static quantization with quantize/dequantize pairs (QDQ).

Convolutions run on 8-bit activations (unsigned, one scale a tensor) and 7-bit weights (signed, one scale a
channel). Seven bits, because processors without VNNI add two 8-bit products in 16 bits, which saturate: full
8-bit weights made cosines to the fp32 embedding fall from 0.995 to 0.93 on such a one (docs/experiments.md).
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import helper

from sphereid.faces.errors import ModelError
from sphereid.faces.manifest import Manifest
from sphereid.faces.quantization.graph import in_float, rewrite
from sphereid.faces.quantization.prelu import prelu_as_maximum

OPERATORS: Final = ("Conv", "Relu", "Add", "Mul", "MaxPool", "AveragePool", "GlobalAveragePool")
"""What is quantized. The fully connected layer costs little time and much accuracy; it stays in float."""

Ranges = Mapping[str, tuple[float, float]]
"""Smallest and largest value of each activation, by the tensor's name in the prepared graph."""


def prepare(model: bytes, manifest: Manifest) -> onnx.ModelProto:
    """The float graph that is quantized: the model's numbers, in the operators that int8 runs fast.

    Constants and batch norms are folded, PReLU is a maximum, and `graph.rewrite` has its way.
    Raises ModelError when the graph can't be read.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as scratch, quantizing(manifest):
        source, folded = (Path(scratch) / f"{name}.onnx" for name in ("source", "folded"))
        plain = prelu_as_maximum(onnx.load_from_string(model))
        source.write_bytes(plain.SerializeToString())
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        made = rewrite(onnx.load(folded), mean=manifest.mean, scale=manifest.scale)
        del made.metadata_props[:]
        made.metadata_props.extend(plain.metadata_props)
        return made


def quantize(plain: onnx.ModelProto, ranges: Ranges, manifest: Manifest) -> bytes:
    """int8 ONNX bytes of a prepared graph whose activations have been seen to lie within `ranges`.

    Raises ModelError when the graph can't be quantized or an activation has no range.
    """
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData
    from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer

    bounds = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    with quantizing(manifest):
        quantizer = QDQQuantizer(
            save_and_reload_model_with_shape_infer(plain),
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, bounds),
            nodes_to_quantize=[],
            nodes_to_exclude=in_float(plain),
            op_types_to_quantize=list(OPERATORS),
            extra_options={},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        made = quantizer.model.model
    helper.set_model_props(
        made, {**{p.key: p.value for p in plain.metadata_props}, "precision": "int8", "of": manifest.sha256}
    )
    return bytes(made.SerializeToString())


@contextmanager
def quantizing(manifest: Manifest) -> Iterator[None]:
    """Errors of the quantizer as ours, and without its advice to preprocess, which it gives even after it was
    done."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    except Exception as error:  # the tool's exceptions share no base
        raise ModelError(
            f"model {manifest.name} cannot be quantized: {str(error).splitlines()[0]}"
        ) from error
    finally:
        root.setLevel(level)
