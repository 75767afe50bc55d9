"""The convolutions of a TensorFlow Lite file of MobileFaceNet, its batch norms folded by whoever wrote it.

The file writes a PReLU out as relu(x) + c · (x − |x|), so its slope is 2c.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sphereid_training.errors import TrainingError

FloatArray = NDArray[np.float32]

_MAGIC: Final = b"TFL3"


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One convolution. weight: (O, I/groups, H, W) as torch has it; bias: (O,).

    same: padding is TensorFlow's SAME, otherwise there is none. slope: (O,) of the PReLU behind it, or None.
    adds: index of the layer whose output is added to this one's, or None.
    """

    weight: FloatArray
    bias: FloatArray
    stride: int
    same: bool
    groups: int
    slope: FloatArray | None = None
    adds: int | None = None


def read_layers(data: bytes) -> list[Layer]:
    """The layers of a .tflite file, in order. Raises TrainingError where it holds another kind of network, or
    the package `tflite` is absent."""
    try:
        import tflite
    except ImportError:
        raise TrainingError(
            "reading a .tflite file needs the package tflite: pip install 'sphereid[mobilefacenet]'"
        ) from None
    if data[4:8] != _MAGIC:
        raise TrainingError("this is not a TensorFlow Lite file")
    model = tflite.Model.GetRootAsModel(data, 0)
    return _Walk(tflite, model).layers()


class _Walk:
    """Goes through the operators of a file and remembers which layer each tensor is the output of."""

    def __init__(self, tflite: Any, model: Any) -> None:
        self._tflite, self._model, self._graph = tflite, model, model.Subgraphs(0)
        kinds = vars(tflite.BuiltinOperator).items()
        self._names = {value: name for name, value in kinds if isinstance(value, int)}
        self._layers: list[Layer] = []
        self._made: dict[int, int] = {}
        self._parts: dict[int, tuple[str, int, FloatArray | None]] = {}

    def layers(self) -> list[Layer]:
        previous = int(self._graph.Inputs(0))
        for position in range(self._graph.OperatorsLength()):
            operator = self._graph.Operators(position)
            code = self._model.OperatorCodes(operator.OpcodeIndex())
            kind = self._names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            inputs, output = [int(i) for i in operator.InputsAsNumpy()], int(operator.Outputs(0))
            try:
                if kind in ("CONV_2D", "DEPTHWISE_CONV_2D") and inputs[0] == previous:
                    self._layers.append(self._convolution(kind, inputs, operator.BuiltinOptions()))
                    self._made[output] = len(self._layers) - 1
                elif kind in ("RELU", "ABS", "SUB"):
                    self._parts[output] = (kind, self._made[inputs[0]], None)
                    continue
                elif kind == "MUL":
                    self._parts[output] = (kind, self._parts[inputs[1]][1], self._constant(inputs[0]))
                    continue
                elif kind == "ADD":
                    self._made[output] = self._sum(*inputs)
                elif kind == "RESHAPE":
                    continue
                else:
                    raise KeyError(kind)
            except (KeyError, ValueError):
                raise TrainingError(
                    f"operator {position} ({kind}) is not where a MobileFaceNet has one"
                ) from None
            previous = output
        return self._layers

    def _convolution(self, kind: str, inputs: list[int], options: Any) -> Layer:
        depthwise = kind == "DEPTHWISE_CONV_2D"
        parsed = self._tflite.DepthwiseConv2DOptions() if depthwise else self._tflite.Conv2DOptions()
        parsed.Init(options.Bytes, options.Pos)
        if parsed.FusedActivationFunction() != 0 or parsed.StrideH() != parsed.StrideW():
            raise ValueError
        weight = self._constant(inputs[1])
        # OHWI to OIHW; depthwise 1HWC to C1HW.
        ordered = np.ascontiguousarray(weight.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2)))
        groups = len(ordered) if depthwise else 1
        same = parsed.Padding() == self._tflite.Padding.SAME
        return Layer(ordered, self._constant(inputs[2]), int(parsed.StrideH()), same, groups)

    def _sum(self, first: int, second: int) -> int:
        """The layer that a sum completes: the two halves of a PReLU, or a residual."""
        if second in self._parts:
            (half, _, _), (scaled, index, slope) = self._parts[first], self._parts[second]
            if half != "RELU" or scaled != "MUL" or slope is None:
                raise ValueError
            self._layers[index] = replace(self._layers[index], slope=2 * slope.reshape(-1))
            return index
        self._layers[-1] = replace(self._layers[-1], adds=self._made[second])
        return len(self._layers) - 1

    def _constant(self, index: int) -> FloatArray:
        tensor = self._graph.Tensors(index)
        raw = self._model.Buffers(tensor.Buffer()).DataAsNumpy()
        if isinstance(raw, int) or tensor.Type() != self._tflite.TensorType.FLOAT32:
            raise ValueError
        values: FloatArray = np.frombuffer(raw.tobytes(), np.float32).reshape(tensor.ShapeAsNumpy()).copy()
        return values
