"""dlib's face descriptor as an ONNX graph, written without torch."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sphereid.faces.published.dlib.weights import BLOCKS, CHIP, EMBEDDING, Convolution, DlibWeights

OPSET: Final = 17
_IR_VERSION: Final = 8  # the oldest that opset 17 goes with: more runtimes can read the file


def build_graph(
    weights: DlibWeights,
    center: NDArray[np.float32] | None = None,
    metadata: Iterable[tuple[str, str]] = (),
) -> onnx.ModelProto:
    """The network from normalized chips to descriptors.

    Input `pixels`: (N, 3, 150, 150) float32, RGB, (p - mean) / 256. Output `embedding`: (N, 128) float32.
    center: (128,) descriptor to subtract (None: dlib's raw descriptor). metadata: pairs to keep in the file.
    """
    graph = _Graph()
    size = CHIP
    value = graph.convolve("pixels", weights.stem, "stem")
    value = graph.add("Relu", [value], "stem.relu")
    size = _after(size, weights.stem)
    value = graph.add("MaxPool", [value], "stem.pool", kernel_shape=[3, 3], strides=[2, 2])
    size = (size - 3) // 2 + 1

    channels = weights.stem.bias.size
    for index, (block, (first, second)) in enumerate(zip(BLOCKS, weights.blocks, strict=True)):
        name = f"block{index}"
        branch = graph.convolve(value, first, f"{name}.first")
        branch = graph.add("Relu", [branch], f"{name}.first.relu")
        branch = graph.convolve(branch, second, f"{name}.second")
        inside = _after(_after(size, first), second)
        if block.down:
            value = graph.add("AveragePool", [value], f"{name}.shortcut", kernel_shape=[2, 2], strides=[2, 2])
            size //= 2
        value = graph.pad(value, block.channels - channels, max(inside - size, 0), f"{name}.shortcut.pad")
        branch = graph.pad(branch, 0, max(size - inside, 0), f"{name}.pad")
        value = graph.add("Add", [value, branch], f"{name}.sum")
        value = graph.add("Relu", [value], f"{name}.relu")
        size, channels = max(size, inside), block.channels

    value = graph.add("GlobalAveragePool", [value], "pool")
    value = graph.add("Flatten", [value], "flat", axis=1)
    projection = graph.constant("projection", weights.projection)
    if center is None:
        graph.add("MatMul", [value, projection], "embedding")
    else:
        graph.add("Gemm", [value, projection, graph.constant("center", -center)], "embedding")
    return graph.model(metadata)


def _after(size: int, layer: Convolution) -> int:
    """Side of a convolution's output for a square input of side `size`."""
    kernel: int = layer.weight.shape[-1]
    return (size + 2 * layer.padding - kernel) // layer.stride + 1


class _Graph:
    """Collects nodes and constants; each node has one output, named after it."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, array: NDArray[np.float32] | NDArray[np.int64]) -> str:
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def convolve(self, value: str, layer: Convolution, name: str) -> str:
        weight = self.constant(f"{name}.weight", layer.weight)
        bias = self.constant(f"{name}.bias", layer.bias)
        pads, strides = [layer.padding] * 4, [layer.stride] * 2
        return self.add("Conv", [value, weight, bias], name, pads=pads, strides=strides)

    def pad(self, value: str, channels: int, pixels: int, name: str) -> str:
        """Zeros after the last channel, below and to the right."""
        if not (channels or pixels):
            return value
        pads = np.array([0, 0, 0, 0, 0, channels, pixels, pixels], dtype=np.int64)
        return self.add("Pad", [value, self.constant(f"{name}.pads", pads)], name)

    def model(self, metadata: Iterable[tuple[str, str]]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes,
            "dlib-face-descriptor",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, CHIP, CHIP])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", EMBEDDING])],
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="sphereid",
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return model
