"""Rewrites that make a graph cheaper to run in int8. Each gives the same numbers in float, to rounding.

They say in convolutions what ONNX Runtime computes slowly in int8 or not at all: an average pool, zero
channels appended to a shortcut, a scale and a shift of the pixels.
"""

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

FloatArray = NDArray[np.float32]

WHOLE: Final = "pixels.whole"
"""Name of the node that moves pixels onto the points of a byte; it has to stay in float."""

_HEADS: Final = ("ReduceMean", "GlobalAveragePool", "MatMul", "Gemm")


class Graph:
    """A copy of a model whose nodes can be found by what they read, and replaced."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.input: str = model.graph.input[0].name
        self.shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in model.graph.value_info
        }

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """In the order in which they run."""
        return list(self.model.graph.node)

    def constant(self, name: str) -> FloatArray | None:
        """The value of a name that stands for one; None for what is computed."""
        for tensor in self.model.graph.initializer:
            if tensor.name == name:
                return np.asarray(numpy_helper.to_array(tensor))
        for node in self.model.graph.node:
            if node.op_type == "Constant" and node.output[0] == name:
                return np.asarray(numpy_helper.to_array(node.attribute[0].t))
        return None

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The node that reads a value, where it is just one and the model does not return the value."""
        readers = [node for node in self.model.graph.node if name in node.input]
        returned = any(name == output.name for output in self.model.graph.output)
        return readers[0] if len(readers) == 1 and not returned else None

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Name of a new constant."""
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def replace(self, old: list[onnx.NodeProto], new: list[onnx.NodeProto]) -> None:
        """Put `new` where the last of `old` stood, and drop constants that nothing reads any more."""
        nodes = [node for node in self.nodes if node not in old[:-1]]
        at = nodes.index(old[-1])
        nodes[at : at + 1] = new
        read = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in self.model.graph.initializer if tensor.name in read]
        del self.model.graph.node[:], self.model.graph.initializer[:]
        self.model.graph.node.extend(nodes)
        self.model.graph.initializer.extend(kept)


def rewrite(model: onnx.ModelProto, *, mean: tuple[float, ...], scale: tuple[float, ...]) -> onnx.ModelProto:
    """A copy with every rewrite that fits. mean, scale: of the manifest; pixels enter as (p - mean) * scale.

    The model's shapes have to be known (`onnx.shape_inference`), its constants folded.
    """
    graph = Graph(model)
    fold_pixel_affine(graph)
    whole_pixels(graph, mean, scale)
    pools_as_convolutions(graph)
    return graph.model


def in_float(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that stay in float: what follows the convolutions, and `whole_pixels`' shift.

    They cost next to nothing, and the embedding would be rounded to 256 values.
    """
    late: set[str] = set()
    names = []
    for node in model.graph.node:
        if node.op_type in _HEADS or not late.isdisjoint(node.input):
            late.update(node.output)
            names.append(node.name)
        elif node.output[0] == WHOLE:
            names.append(node.name)
    return names


def fold_pixel_affine(graph: Graph) -> None:
    """Pixels scaled and shifted before an unpadded first convolution are so in its weights and bias."""
    removed: list[onnx.NodeProto] = []
    gain, shift = np.ones(3), np.zeros(3)
    name = graph.input
    while (node := graph.only_reader(name)) is not None and node.op_type in ("Mul", "Add"):
        value = _per_channel(graph.constant(node.input[1 - list(node.input).index(name)]))
        if value is None:
            return
        if node.op_type == "Mul":
            gain, shift = gain * value, shift * value
        else:
            shift = shift + value
        removed.append(node)
        name = node.output[0]
    convolution = _unpadded_convolution(graph, name)
    if removed and convolution is not None:
        graph.replace([*removed, convolution], [_shifted(graph, convolution, graph.input, gain, shift)])


def whole_pixels(graph: Graph, mean: tuple[float, ...], scale: tuple[float, ...]) -> None:
    """Shift pixels so that a byte holds each of them without loss, where the mean lies between two bytes.

    (p - 127.5) / 128 in steps of 1/128 from zero falls halfway between two steps, whatever p.
    """
    convolution = _unpadded_convolution(graph, graph.input)
    shift = (np.asarray(mean) - np.floor(mean)) * np.asarray(scale)
    if convolution is None or not shift.any():
        return
    constant = graph.add_constant(f"{WHOLE}.shift", shift.astype(np.float32).reshape(3, 1, 1))
    add = helper.make_node("Add", [graph.input, constant], [WHOLE], name=WHOLE)
    graph.replace([convolution], [add, _shifted(graph, convolution, WHOLE, np.ones(3), -shift)])


def pools_as_convolutions(graph: Graph) -> None:
    """An average pool and the zero channels appended to it are one convolution with fixed weights."""
    for pool in graph.nodes:
        if pool.op_type != "AveragePool":
            continue
        given = _attributes(pool)
        pad = graph.only_reader(pool.output[0])
        channels = graph.shapes.get(pool.input[0], [0, 0])[1]
        if pad is None or not channels or any(given.get("pads", ())) or given.get("ceil_mode", 0):
            continue
        appended = _appended_channels(graph, pad)
        if not appended:
            continue
        kernel = given["kernel_shape"]
        weight = np.zeros((channels + appended, channels, *kernel), np.float32)
        weight[np.arange(channels), np.arange(channels)] = 1 / np.prod(kernel)
        name = graph.add_constant(f"{pad.output[0]}.weight", weight)
        made = helper.make_node(
            "Conv",
            [pool.input[0], name],
            list(pad.output),
            name=pad.name,
            kernel_shape=kernel,
            strides=given.get("strides", [1, 1]),
        )
        graph.replace([pool, pad], [made])


def _appended_channels(graph: Graph, pad: onnx.NodeProto) -> int:
    """How many zero channels a node appends; 0 where it does anything else."""
    if pad.op_type != "Pad" or _attributes(pad).get("mode", b"constant") != b"constant":
        return 0
    pads = graph.constant(pad.input[1])
    named = len(pad.input) > 2 and pad.input[2]
    value = graph.constant(pad.input[2]) if named else np.zeros(1, np.float32)
    if pads is None or pads.size != 8 or value is None or value.any() or np.delete(pads, 5).any():
        return 0
    return max(0, int(pads[5]))


def _unpadded_convolution(graph: Graph, name: str) -> onnx.NodeProto | None:
    """The one reader of the pixels `name` if it is a convolution in which every output sees whole windows."""
    node = graph.only_reader(name)
    if node is None or node.op_type != "Conv":
        return None
    given = _attributes(node)
    padded = any(given.get("pads", ())) or given.get("auto_pad", b"NOTSET") != b"NOTSET"
    known = all(graph.constant(each) is not None for each in node.input[1:])
    return None if padded or not known or given.get("group", 1) != 1 else node


def _shifted(
    graph: Graph, old: onnx.NodeProto, source: str, gain: NDArray[Any], shift: NDArray[Any]
) -> onnx.NodeProto:
    """The convolution that gives on `source` what the old one gives on gain·source + shift, by channel."""
    weight = graph.constant(old.input[1])
    bias = graph.constant(old.input[2]) if len(old.input) > 2 else np.zeros(1, np.float32)
    assert weight is not None
    assert bias is not None
    exact = weight.astype(np.float64)
    values = exact * gain[:, None, None], bias + np.einsum("oihw,i->o", exact, shift)
    names = [
        graph.add_constant(f"{old.input[1]}.{source}.{what}", value.astype(np.float32))
        for what, value in zip(("weight", "bias"), values, strict=True)
    ]
    return helper.make_node("Conv", [source, *names], list(old.output), name=old.name, **_attributes(old))


def _per_channel(value: FloatArray | None) -> NDArray[np.float64] | None:
    """(3,) of a constant with one number, or with one a channel of (N, 3, H, W)."""
    if value is None or not (value.size == 1 or (value.size == 3 and value.shape[-3:] == (3, 1, 1))):
        return None
    return np.broadcast_to(value.reshape(-1).astype(np.float64), 3)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}
