"""MobileFaceNet (Chen et al., CCBR 2018): inverted residuals for faces, with a global depthwise layer."""

import torch
from torch import Tensor, nn

from sphereid_training.networks.activation import PReLU

# (expansion, channels, units, stride of the first unit), the paper's Table 1.
_BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


def _conv(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    *,
    stride: int = 1,
    groups: int = 1,
    active: bool = True,
) -> nn.Sequential:
    padding = kernel // 2 if isinstance(kernel, int) else 0
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if active:
        layers.append(PReLU(outputs))
    return nn.Sequential(*layers)


class Bottleneck(nn.Module):
    """1×1 expansion, 3×3 depthwise, linear 1×1 projection; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.body = nn.Sequential(
            _conv(inputs, hidden, 1),
            _conv(hidden, hidden, 3, stride=stride, groups=hidden),
            _conv(hidden, outputs, 1, active=False),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.residual else y


class MobileFaceNet(nn.Module):
    """(B, 3, H, W) pixels to (B, embedding_size) embeddings, not normalized.

    width: channels of the first layer, 64 in the paper; all others scale with it.
    """

    def __init__(
        self, *, width: int = 64, embedding_size: int = 128, input_size: tuple[int, int] = (112, 112)
    ) -> None:
        super().__init__()

        def wide(channels: int) -> int:
            return max(8, channels * width // 64)

        layers: list[nn.Module] = [
            _conv(3, wide(64), 3, stride=2),
            _conv(wide(64), wide(64), 3, groups=wide(64)),
        ]
        channels = wide(64)
        for expansion, outputs, units, stride in _BOTTLENECKS:
            for unit in range(units):
                layers.append(Bottleneck(channels, wide(outputs), expansion, stride if unit == 0 else 1))
                channels = wide(outputs)
        self.features = nn.Sequential(*layers, _conv(channels, wide(512), 1))
        self.map_size = (-(-input_size[0] // 16), -(-input_size[1] // 16))
        self.pool = _conv(wide(512), wide(512), self.map_size, groups=wide(512), active=False)
        self.embed = nn.Sequential(
            nn.Conv2d(wide(512), embedding_size, 1, bias=False), nn.BatchNorm2d(embedding_size)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.flatten(self.embed(self.pool(self.features(pixels))), 1)
