"""Embeddings of many crops with a torch backbone."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sphereid_training.data.loader import to_pixels

FloatArray = NDArray[np.float32]


@torch.no_grad()
def embed(
    backbone: nn.Module, crops: NDArray[np.uint8], *, batch: int = 128, flip: bool = True
) -> FloatArray:
    """(N, H, W, 3) uint8 crops to (N, D) L2-normalized embeddings; flip sums the mirrored crop's embedding
    in."""
    training = backbone.training
    backbone.eval()
    parts = []
    for start in range(0, len(crops), batch):
        pixels = to_pixels(np.ascontiguousarray(crops[start : start + batch]))
        out = backbone(pixels).float()
        if flip:
            out = out + backbone(pixels.flip(3)).float()
        parts.append(torch.nn.functional.normalize(out, dim=1).numpy())
    backbone.train(training)
    if not parts:
        raise ValueError("no crops to embed")
    return np.concatenate(parts)
