"""MTCNN as ONNX graphs: built from the package's weights once, kept in a cache folder under their digest."""

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sphereid.faces.detect.mtcnn.weights import NETS, Array, Net, NetWeights, load_weights, weights_digest

if TYPE_CHECKING:
    from onnx import ModelProto

log = logging.getLogger(__name__)

GRAPH_VERSION = 4
"""Part of the cache key: raise it whenever the graphs below change."""

_MEAN, _SCALE = 127.5, 128.0
_OPSET = 17
_POOLS: dict[Net, tuple[int, ...]] = {"pnet": (2,), "rnet": (3, 3), "onet": (3, 3, 2)}


def load_graphs(cache_dir: Path | None) -> dict[Net, bytes]:
    """The three serialized ONNX models, from the cache when it holds them intact, else built (and cached).

    A folder that cannot be written (read-only root) is no error: the models are then built in memory.
    """
    key = f"mtcnn-{weights_digest()[:16]}-v{GRAPH_VERSION}"
    folder = None if cache_dir is None else Path(cache_dir) / key
    if folder is not None and (cached := _read(folder)) is not None:
        return cached
    models = {net: build_graph(net, load_weights(net)).SerializeToString() for net in NETS}
    if folder is not None:
        try:
            _write(folder, models)
        except OSError as error:
            log.info("detector cache %s cannot be written (%s); keeping the models in memory", folder, error)
    return models


def _read(folder: Path) -> dict[Net, bytes] | None:
    try:
        digests = json.loads((folder / "sha256.json").read_text())
        models: dict[Net, bytes] = {net: (folder / f"{net}.onnx").read_bytes() for net in NETS}
    except (OSError, ValueError):
        return None
    intact = isinstance(digests, dict) and all(digests.get(n) == _sha256(m) for n, m in models.items())
    if not intact:
        log.warning("detector cache %s is damaged; building it again", folder)
    return models if intact else None


def _write(folder: Path, models: dict[Net, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for net, model in models.items():
        _replace(folder / f"{net}.onnx", model)
    digests = {net: _sha256(model) for net, model in models.items()}
    _replace(folder / "sha256.json", json.dumps(digests, indent=2).encode())


def _replace(path: Path, content: bytes) -> None:
    """Write so that a reader, or a second process doing the same, never sees half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def build_graph(net: Net, weights: NetWeights) -> "ModelProto":
    """One network of the cascade as an ONNX model.

    Input `pixels`: (N, 3, H, W) float32 RGB planes, 0 to 255; R-net takes 24×24, O-net 48×48, P-net any size
    of at least 12.
    Output `heads`: P-net (N, 5, H', W') with H' = ⌈(H−2)/2⌉−4; R-net (N, 5); O-net (N, 15): box regression
    (left, top, right, bottom), landmarks x1..x5 y1..y5 (O-net), face logit. The logit is the difference of
    the published two, so softmax's face probability is its sigmoid.

    The normalization (x−127.5)/128 is folded into the first convolution, exact because no layer pads.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []

    def constant(name: str, value: Array) -> str:
        initializers.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def prelu(x: str, name: str, slope: Array) -> str:
        """PReLU from nodes that stay in ONNX Runtime's blocked layout; its own kernel is the slowest part.

        With slope a it is x ± relu(−|1−a|·x), plus for a ≤ 1. The runtime makes a convolution of each of the
        two products, the first with the relu in it, the second with the sum.
        """
        slope = slope.reshape(-1, 1, 1, 1)
        tail = add("Relu", [channelwise(x, f"{name}_part", -abs(1 - slope))], f"{name}_tail")
        return add("Add", [x, channelwise(tail, f"{name}_signed", np.sign(1 - slope))], name)

    def channelwise(x: str, name: str, factor: Array) -> str:
        return add("Conv", [x, constant(f"{name}_w", factor)], name, group=len(factor))

    x = "pixels"
    for i, layer in enumerate(weights.convs, start=1):
        kernel, bias, slope = layer.kernel, layer.bias, layer.slope
        if i == 1:
            bias = bias - kernel.sum(axis=(1, 2, 3)) * np.float32(_MEAN / _SCALE)
            kernel = kernel / np.float32(_SCALE)
        else:
            kernel = _pad(kernel, axis=1)
        if i < len(weights.convs):
            kernel, bias, slope = _pad(kernel), _pad(bias), _pad(slope)
        x = add("Conv", [x, constant(f"w{i}", kernel), constant(f"b{i}", bias)], f"conv{i}")
        x = prelu(x, f"prelu{i}", slope)
        if i <= len(_POOLS[net]):
            size = _POOLS[net][i - 1]
            x = add("MaxPool", [x], f"pool{i}", kernel_shape=[size] * 2, strides=[2, 2], ceil_mode=1)
    head_kernel, head_bias = _merge_heads(weights)
    if weights.dense:
        # The published dense weights expect width before height: reorder their rows instead of the tensor.
        dense = weights.dense[0]
        side, channels = 3, weights.convs[-1].bias.size
        rows = np.arange(dense.kernel.shape[0]).reshape(side, side, channels)  # (w, h, c) as published
        kernel = dense.kernel[rows.transpose(2, 1, 0).reshape(-1)]  # (c, h, w) as Flatten gives
        x = add("Flatten", [x], "flat", axis=1)
        x = add("Gemm", [x, constant("w_dense", kernel), constant("b_dense", dense.bias)], "dense")
        x = add("PRelu", [x, constant("a_dense", dense.slope)], "prelu_dense")
        add("Gemm", [x, constant("w_heads", head_kernel), constant("b_heads", head_bias)], "heads")
        output_shape: list[int | str] = ["N", head_bias.size]
        size_in: list[int | str] = [24, 24] if net == "rnet" else [48, 48]
    else:
        kernel = head_kernel.T.reshape(head_bias.size, -1, 1, 1)
        add("Conv", [x, constant("w_heads", kernel), constant("b_heads", head_bias)], "heads")
        output_shape = ["N", head_bias.size, "h", "w"]
        size_in = ["H", "W"]
    graph = helper.make_graph(
        nodes,
        net,
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, *size_in])],
        [helper.make_tensor_value_info("heads", TensorProto.FLOAT, output_shape)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _pad(array: Array, axis: int = 0) -> Array:
    """Zeros up to a multiple of 8 channels, the block that ONNX Runtime's fast convolutions want."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, -array.shape[axis] % 8)
    return np.pad(array, widths)


def _merge_heads(weights: NetWeights) -> tuple[Array, Array]:
    """All heads as one (in, out) matrix and bias; the two class logits become their difference."""
    *regressions, (class_kernel, class_bias) = weights.heads
    kernels = [kernel for kernel, _ in regressions] + [class_kernel[:, 1:] - class_kernel[:, :1]]
    biases = [bias for _, bias in regressions] + [class_bias[1:] - class_bias[:1]]
    return np.concatenate(kernels, axis=1), np.concatenate(biases)
