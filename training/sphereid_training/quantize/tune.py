"""Fine-tune an int8 model's weights so that it gives the embeddings of its own fp32 network.

Quantization-aware distillation: the quantized graph is run in torch with every rounding where ONNX Runtime
has it (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018); gradients pass a rounding as if it were not there, and stop where a value was clipped. No
label is needed: the target is the fp32 network's embedding of the same face.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from sphereid.faces.embed import open_session
from sphereid.faces.manifest import Manifest
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sphereid_training.errors import TrainingError
from sphereid_training.quantize.static import pixels_of

WEIGHT_LIMIT: Final = 64
"""Largest magnitude of a 7-bit weight, as ONNX Runtime's quantizer has it with `reduce_range`."""

_SUFFIX: Final = "_quantized"


@dataclass(frozen=True, slots=True)
class Tuning:
    """How long and how fast. steps: batches of `batch` faces. lr: of Adam, at its highest."""

    steps: int
    lr: float = 5e-6
    batch: int = 32

    def rate(self, step: int) -> float:
        """Share of `lr` at a step: rising over the first twentieth, then to 0 along a cosine."""
        rise = max(1, self.steps // 20)
        return min(1.0, (step + 1) / rise) * 0.5 * (1 + math.cos(math.pi * step / self.steps))


class FakeQuantized(nn.Module):
    """A quantized graph in torch, its weights and biases as float parameters that are rounded at each use.

    quantized: ONNX with QuantizeLinear and DequantizeLinear pairs. plain: the graph that it was made from,
    whose float weights the parameters start with; None starts with the rounded ones. Raises TrainingError
    for an operator that is not known here.
    """

    def __init__(self, quantized: onnx.ModelProto, plain: onnx.ModelProto | None = None) -> None:
        super().__init__()
        graph = quantized.graph
        self._input, self._output = graph.input[0].name, graph.output[0].name
        values = {each.name: _array(each) for each in graph.initializer}
        floats = {each.name: _array(each) for each in plain.graph.initializer} if plain is not None else {}
        self.weights = nn.ParameterDict()
        self.biases = nn.ParameterDict()
        self._names: dict[str, str] = {}
        self._scales: dict[str, Tensor] = {}
        self._constants: dict[str, Tensor] = {}
        self._nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            if node.op_type == "Constant":
                self._constants[node.output[0]] = _tensor(_array(node.attribute[0].t))
            elif node.op_type == "DequantizeLinear" and node.input[0] in values:
                if values[node.input[0]].dtype in (np.int8, np.int32):
                    self._parameter(node, values, floats)
                else:
                    stored, scale, zero = (values[name].astype(np.float32) for name in node.input)
                    self._constants[node.output[0]] = _tensor((stored - zero) * scale)
            elif node.op_type in _OPERATORS or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                self._nodes.append(node)
            else:
                raise TrainingError(f"cannot fine-tune through the operator {node.op_type} ({node.name})")
        self._constants |= {name: _tensor(value) for name, value in values.items()}

    def _parameter(
        self,
        node: onnx.NodeProto,
        values: dict[str, NDArray[Any]],
        floats: dict[str, NDArray[Any]],
    ) -> None:
        stored, scale = values[node.input[0]], values[node.input[1]].astype(np.float32)
        shaped = scale.reshape(-1, *[1] * (stored.ndim - 1))
        start = floats.get(node.input[0].removesuffix(_SUFFIX), stored * shaped)
        key = f"p{len(self._names)}"
        self._names[node.output[0]] = key
        self._scales[key] = torch.from_numpy(np.broadcast_to(scale.reshape(-1), len(stored)).copy())
        kind = self.weights if stored.dtype == np.int8 else self.biases
        kind[key] = nn.Parameter(torch.from_numpy(np.array(start, np.float32)))

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) pixels as the model takes them to what it returns."""
        value = {**self._constants, self._input: pixels}
        for name, key in self._names.items():
            value[name] = self._weight(key) if key in self.weights else self.biases[key]
        for node in self._nodes:
            inputs = [value[name] if name else None for name in node.input]
            if node.op_type == "QuantizeLinear":
                value[node.output[0]] = _fake_quantize(*inputs)  # type: ignore[arg-type]
            elif node.op_type == "DequantizeLinear":
                value[node.output[0]] = inputs[0]  # type: ignore[assignment]
            else:
                given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
                value[node.output[0]] = _OPERATORS[node.op_type](given, *inputs)
        return value[self._output]

    def _weight(self, key: str) -> Tensor:
        scale = self._scales[key]
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            self.weights[key], scale, zero, 0, -WEIGHT_LIMIT, WEIGHT_LIMIT
        )

    def written_to(self, quantized: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of the graph with these weights, rounded."""
        made = onnx.ModelProto()
        made.CopyFrom(quantized)
        tensors = {each.name: each for each in made.graph.initializer}
        for node in made.graph.node:
            key = self._names.get(node.output[0])
            if node.op_type != "DequantizeLinear" or key is None:
                continue
            tensor = tensors[node.input[0]]
            weight = key in self.weights
            parameter = (self.weights if weight else self.biases)[key].detach().double()
            scale = self._scales[key].double().reshape(-1, *[1] * (parameter.ndim - 1))
            rounded = torch.round(parameter / scale).numpy()
            if weight:
                stored = np.clip(rounded, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
            else:
                stored = np.clip(rounded, -(2**31), 2**31 - 1).astype(np.int32)
            tensor.CopyFrom(numpy_helper.from_array(stored, tensor.name))
        return made


def fine_tune(
    int8: bytes,
    plain: onnx.ModelProto,
    crops: NDArray[np.uint8],
    manifest: Manifest,
    tuning: Tuning,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> bytes:
    """The int8 model with weights that bring its embeddings nearer to those of its float graph `plain`.

    crops: (N, H, W, 3) uint8 faces, each taken as it is or mirrored. progress: called with the number of
    steps done and the last one's loss. Raises TrainingError for a graph with operators unknown here, for
    fewer faces than a batch, and when weights are no longer numbers.
    """
    if len(crops) < tuning.batch:
        raise TrainingError(f"{len(crops)} faces to fine-tune on are fewer than a batch of {tuning.batch}")
    model = onnx.load_from_string(int8)
    student = FakeQuantized(model, plain)
    session = open_session(plain.SerializeToString(), "cpu")
    optimizer = torch.optim.Adam(student.parameters(), lr=tuning.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, tuning.rate)
    for step, pixels in enumerate(_batches(crops, manifest, tuning)):
        target = torch.from_numpy(session.run(None, {plain.graph.input[0].name: pixels})[0])
        # Channels last, the convolutions take a tenth less time.
        found = student(torch.from_numpy(pixels).to(memory_format=torch.channels_last))
        loss = distance(found, target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress(step + 1, float(loss.detach()))
    # Roundings turn what is not a number into one, so that a loss would not tell.
    if not all(torch.isfinite(parameter).all() for parameter in student.parameters()):
        raise TrainingError("the int8 fine-tuning diverged: choose a smaller rate")
    return bytes(student.written_to(model).SerializeToString())


def distance(found: Tensor, target: Tensor) -> Tensor:
    """Σ|f̂ - t̂|² / Σ|t̂ - mean t̂|² of (N, D) embeddings brought to length 1: 0 for equal ones, 1 for a network
    that gives every face the mean."""
    found, target = F.normalize(found, dim=1), F.normalize(target, dim=1)
    spread = (target - target.mean(dim=0)).square().sum()
    return (found - target).square().sum() / spread.clamp_min(1e-12)


def _batches(crops: NDArray[np.uint8], manifest: Manifest, tuning: Tuning) -> Iterator[NDArray[np.float32]]:
    """(batch, 3, H, W) pixels, `steps` times: the faces in random order, over and over."""
    rng = np.random.default_rng(0)
    order = np.empty(0, np.int64)
    for _ in range(tuning.steps):
        if len(order) < tuning.batch:
            order = rng.permutation(len(crops))
        rows, order = order[: tuning.batch], order[tuning.batch :]
        pixels = pixels_of(crops[rows], manifest)
        mirrored = rng.random(len(rows)) < 0.5
        pixels[mirrored] = pixels[mirrored, :, :, ::-1]
        yield pixels


def _array(tensor: onnx.TensorProto) -> NDArray[Any]:
    return np.asarray(numpy_helper.to_array(tensor))


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(array))


def _fake_quantize(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero), 0, 255)


def _sides(given: dict[str, Any]) -> tuple[int, int, int, int]:
    """Padding as torch orders it: left, right, top, bottom."""
    top, left, bottom, right = given.get("pads", (0, 0, 0, 0))
    return left, right, top, bottom


def _padded(x: Tensor, given: dict[str, Any], value: float = 0.0) -> Tensor:
    sides = _sides(given)
    return F.pad(x, sides, value=value) if any(sides) else x


def _conv(given: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    left, right, top, bottom = _sides(given)
    even = left == right and top == bottom
    return F.conv2d(
        x if even else _padded(x, given),
        weight,
        bias,
        tuple(given.get("strides", (1, 1))),
        (top, left) if even else 0,
        tuple(given.get("dilations", (1, 1))),
        given.get("group", 1),
    )


def _max_pool(given: dict[str, Any], x: Tensor) -> Tensor:
    strides = tuple(given.get("strides", (1, 1)))
    ceil = bool(given.get("ceil_mode", 0))
    return F.max_pool2d(_padded(x, given, -math.inf), tuple(given["kernel_shape"]), strides, ceil_mode=ceil)


def _average_pool(given: dict[str, Any], x: Tensor) -> Tensor:
    if any(given.get("pads", ())):
        raise TrainingError("cannot fine-tune through a padded AveragePool")
    strides = tuple(given.get("strides", (1, 1)))
    return F.avg_pool2d(x, tuple(given["kernel_shape"]), strides, ceil_mode=bool(given.get("ceil_mode", 0)))


def _pad(given: dict[str, Any], x: Tensor, pads: Tensor, value: Tensor | None = None) -> Tensor:
    half = len(pads) // 2
    order = [int(each) for i in range(half - 1, -1, -1) for each in (pads[i], pads[i + half])]
    return F.pad(x, order, value=0.0 if value is None else float(value))


def _axes(axes: Tensor | None) -> list[int] | None:
    return None if axes is None else [int(each) for each in axes]


def _gemm(given: dict[str, Any], a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if given.get("transA", 0) else a
    b = b.T if given.get("transB", 0) else b
    product: Tensor = given.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + given.get("beta", 1.0) * c


def _clip(given: dict[str, Any], x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return torch.clamp(x, None if low is None else float(low), None if high is None else float(high))


def _reshape(given: dict[str, Any], x: Tensor, shape: Tensor) -> Tensor:
    wanted = [int(each) or x.shape[i] for i, each in enumerate(shape)]
    return x.reshape(wanted)


_OPERATORS: Final[dict[str, Callable[..., Tensor]]] = {
    "Add": lambda given, a, b: a + b,
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Conv": _conv,
    "Div": lambda given, a, b: a / b,
    "Expand": lambda given, x, shape: x.expand([int(each) for each in shape]),
    "Flatten": lambda given, x: x.flatten(given.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda given, x: x.mean(dim=(2, 3), keepdim=True),
    "Identity": lambda given, x: x,
    "MatMul": lambda given, a, b: a @ b,
    "Max": lambda given, a, b: torch.maximum(a, b),
    "MaxPool": _max_pool,
    "Mul": lambda given, a, b: a * b,
    "PRelu": lambda given, x, slope: torch.where(x < 0, slope * x, x),
    "Pad": _pad,
    "ReduceL2": lambda given, x, axes: x.norm(dim=_axes(axes), keepdim=bool(given.get("keepdims", 1))),
    "ReduceMean": lambda given, x, axes: x.mean(dim=_axes(axes), keepdim=bool(given.get("keepdims", 1))),
    "Relu": lambda given, x: F.relu(x),
    "Reshape": _reshape,
    "Shape": lambda given, x: torch.tensor(x.shape),
    "Sub": lambda given, a, b: a - b,
    "Transpose": lambda given, x: x.permute(*given["perm"]),
}
