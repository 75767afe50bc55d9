"""The SphereFace residual CNNs (Liu et al., CVPR 2017, Table 2, in the released Caffe form).

Per stage: Conv3×3 stride 2 → PReLU, then residual units x + PReLU(Conv(PReLU(Conv(x)))) with no activation
after the sum, and one fully connected layer on the flattened last map.
"""

import math

import torch
from torch import Tensor, nn

from sphereid_training.networks.activation import PReLU

UNITS: dict[str, tuple[int, int, int, int]] = {
    "sphereface4": (0, 0, 0, 0),
    "sphereface10": (0, 1, 2, 0),
    "sphereface20": (1, 2, 4, 1),
    "sphereface36": (2, 4, 8, 2),
    "sphereface64": (3, 8, 16, 3),
    "sphereface64_released": (3, 7, 16, 3),
}
"""Residual units per stage. The published 64-layer prototxt has 62 convolutions: seven units in stage two."""


class ResidualUnit(nn.Module):
    """x + PReLU(Conv(PReLU(Conv(x)))), with batch norm after each convolution when asked for.

    The released nets freeze the residual convolutions' biases at 0, so there are none here.
    """

    def __init__(self, channels: int, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers.append(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
            if batch_norm:
                layers.append(nn.BatchNorm2d(channels))
            layers.append(PReLU(channels))
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.body(x)
        return y


class SphereFaceNet(nn.Module):
    """(B, 3, H, W) float pixels, (p − 127.5)/128, to (B, embedding_size) embeddings, not normalized.

    units: residual units of the four stages. width: channels of the first stage, doubled at every next
    (64 in the paper). batch_norm: normalize after every convolution, and the embedding without affine part.
    input_size: (H, W) of the pixels; fixes the fully connected layer. map_pool: side of the squares of the
    last map that are averaged before it, so that 2 gives it the size that half the resolution had.
    """

    def __init__(
        self,
        units: tuple[int, int, int, int],
        *,
        width: int = 64,
        batch_norm: bool = False,
        embedding_size: int = 512,
        input_size: tuple[int, int] = (112, 96),
        map_pool: int = 1,
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = 3
        for stage, count in enumerate(units):
            out = width * 2**stage
            stages.append(nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=not batch_norm))
            if batch_norm:
                stages.append(nn.BatchNorm2d(out))
            stages.append(PReLU(out))
            stages.extend(ResidualUnit(out, batch_norm) for _ in range(count))
            channels = out
        self.features = nn.Sequential(*stages)
        self.pool: nn.Module = nn.Identity()
        if map_pool > 1:
            self.pool = nn.AvgPool2d(map_pool, ceil_mode=True, count_include_pad=False)
        self.map_size = tuple(math.ceil(math.ceil(side / 16) / map_pool) for side in input_size)
        self.fc = nn.Linear(
            channels * self.map_size[0] * self.map_size[1], embedding_size, bias=not batch_norm
        )
        self.norm: nn.Module = nn.BatchNorm1d(embedding_size, affine=False) if batch_norm else nn.Identity()
        self._initialize(batch_norm)

    def _initialize(self, batch_norm: bool) -> None:
        """Caffe's xavier, U(±√(3/fan_in)), for strided convolutions and FC; N(0, 0.01²) for residual ones.

        With batch norm a weight's length only sets its effective learning rate, so the residual ones get the
        usual He scale.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.stride == (1, 1):
                if batch_norm:
                    nn.init.kaiming_normal_(module.weight, a=0.25)
                else:
                    nn.init.normal_(module.weight, std=0.01)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                bound = math.sqrt(3.0 / module.weight[0].numel())
                nn.init.uniform_(module.weight, -bound, bound)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.pool(self.features(pixels))
        embedding: Tensor = self.norm(self.fc(torch.flatten(maps.contiguous(), 1)))
        return embedding
