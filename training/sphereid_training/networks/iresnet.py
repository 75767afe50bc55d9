"""IResNet (Duta et al., ICPR 2020) in ArcFace's form: BN-Conv-BN-PReLU-Conv-BN units, flattened FC output."""

import torch
from torch import Tensor, nn

from sphereid_training.networks.activation import PReLU

UNITS: dict[str, tuple[int, int, int, int]] = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
}
"""Units per stage."""


class Unit(nn.Module):
    """shortcut(x) + BN(Conv_s(PReLU(BN(Conv(BN(x))))); the shortcut is a strided 1×1 convolution with BN
    where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.shortcut(x) + self.body(x)
        return y


class IResNet(nn.Module):
    """(B, 3, H, W) pixels to (B, embedding_size) embeddings, not normalized.

    width: channels of the first stage, 64 in the paper. The scale of the last batch norm is fixed at 1.
    """

    def __init__(
        self,
        units: tuple[int, int, int, int],
        *,
        width: int = 64,
        embedding_size: int = 512,
        input_size: tuple[int, int] = (112, 112),
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), PReLU(width)
        )
        channels, layers = width, []
        for stage, count in enumerate(units):
            outputs = width * 2**stage
            for unit in range(count):
                layers.append(Unit(channels, outputs, 2 if unit == 0 else 1))
                channels = outputs
        self.features = nn.Sequential(*layers)
        self.map_size = (-(-input_size[0] // 16), -(-input_size[1] // 16))
        self.norm = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels * self.map_size[0] * self.map_size[1], embedding_size)
        self.embedding_norm = nn.BatchNorm1d(embedding_size)
        self.embedding_norm.weight.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.1)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.norm(self.features(self.stem(pixels)))
        embedding: Tensor = self.embedding_norm(self.fc(torch.flatten(maps.contiguous(), 1)))
        return embedding
