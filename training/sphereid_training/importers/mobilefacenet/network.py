"""MobileFaceNet with its batch norms folded, in torch: as it is read, and in operators served fast."""

from collections.abc import Sequence

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sphereid_training.importers.mobilefacenet.reader import Layer
from sphereid_training.networks.activation import PReLU


class FoldedMobileFaceNet(nn.Module):
    """(B, 3, 112, 112) RGB pixels, (p − 127.5)/128, to (B, 192) embeddings, not normalized."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Convolution(layer) for layer in layers)
        self._adds = [layer.adds for layer in layers]

    def forward(self, pixels: Tensor) -> Tensor:
        x, outputs = pixels, dict[int, Tensor]()
        for index, (layer, adds) in enumerate(zip(self.layers, self._adds, strict=True)):
            x = layer(x)
            if adds is not None:
                x = x + outputs[adds]
            if index in self._adds:
                outputs[index] = x
        return torch.flatten(x, 1)

    def split_prelus(self) -> None:
        """Write each PReLU as a·x + (1 − a)·relu(x), both products as depthwise convolutions.

        ONNX Runtime then keeps its blocked layout from the first layer to the last, where PRelu and Max make
        it convert between two.
        """
        for layer in self.layers:
            if isinstance(layer, _Convolution) and isinstance(layer.act, PReLU):
                layer.act = _SplitPReLU(layer.act.weight.detach())

    def pad_evenly(self) -> None:
        """Pad stride-2 convolutions on all sides, as one operator; `pad_late` puts the exported ones right.

        Torch has no uneven padding within a convolution, ONNX has.
        """
        for layer in self.layers:
            if isinstance(layer, _Convolution) and isinstance(layer.pad, nn.ZeroPad2d):
                layer.pad, layer.conv.padding = nn.Identity(), (1, 1)


class _Convolution(nn.Module):
    """Convolution with a bias and TensorFlow's padding, and the PReLU behind it."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        outputs, inputs, height, width = layer.weight.shape
        even = layer.same and layer.stride == 2
        padding = (height // 2, width // 2) if layer.same and not even else (0, 0)
        self.conv = nn.Conv2d(
            inputs * layer.groups, outputs, (height, width), layer.stride, padding, groups=layer.groups
        )
        self.conv.weight.data.copy_(torch.from_numpy(layer.weight))
        assert self.conv.bias is not None
        self.conv.bias.data.copy_(torch.from_numpy(layer.bias))
        # SAME with stride 2 on an even side: the odd row comes last.
        self.pad: nn.Module = nn.ZeroPad2d((0, 1, 0, 1)) if even else nn.Identity()
        self.act: nn.Module = nn.Identity()
        if layer.slope is not None:
            self.act = PReLU(outputs)
            self.act.weight.data.copy_(torch.from_numpy(layer.slope))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.conv(self.pad(x)))
        return y


class _SplitPReLU(nn.Module):
    """max(x, 0) + a·min(x, 0) for (N, C, H, W) and slopes a of shape (C,)."""

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        count = len(slope)
        self.through = nn.Conv2d(count, count, 1, groups=count, bias=False)
        self.positive = nn.Conv2d(count, count, 1, groups=count, bias=False)
        self.through.weight.data.copy_(slope.view(-1, 1, 1, 1))
        self.positive.weight.data.copy_((1 - slope).view(-1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.positive(F.relu(x)) + self.through(x)
        return y


def pad_late(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose stride-2 convolutions pad the bottom and the right only, as TensorFlow's SAME does."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for node in result.graph.node:
        if node.op_type != "Conv":
            continue
        values = {attribute.name: attribute for attribute in node.attribute}
        if list(values["strides"].ints) == [2, 2]:
            values["pads"].ints[:] = [0, 0, 1, 1]
    return result
