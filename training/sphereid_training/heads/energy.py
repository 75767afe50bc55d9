"""Minimum hyperspherical energy of class centers (Liu et al., NeurIPS 2018; SphereFace+)."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

MIN_DISTANCE = 1e-3


def hyperspherical_energy(
    weight: Tensor, labels: Tensor, kind: Literal["euclid", "angular"], power: float = 2.0
) -> Tensor:
    """Mean repulsion energy between the batch's class centers and others; lower is more spread out.

    weight: (C, D) centers of any length. labels: (B,) classes of the batch. `euclid`: mean over the batch
    and all other classes of ‖ŵ_y − ŵ_j‖^−power (power 0: log 1/distance), the mini-batch form of the paper.
    `angular`: mean over pairs of distinct batch classes of θ^−power, as opensphere has it. Distances below
    1e-3 count as 1e-3. 0 when there is nothing to compare.
    """
    w = F.normalize(weight.float(), dim=1)
    if kind == "angular":
        classes = torch.unique(labels)
        if len(classes) < 2:
            return w.new_zeros(())
        cosine = (w[classes] @ w[classes].T).clamp(-1 + 1e-6, 1 - 1e-6)
        upper = torch.triu_indices(len(classes), len(classes), 1)
        distance = torch.acos(cosine[upper[0], upper[1]])
    else:
        if len(labels) == 0 or len(w) < 2:
            return w.new_zeros(())
        # ‖a − b‖² = 2 − 2 a·b on the unit sphere; the floor keeps the root differentiable.
        square = (2 - 2 * w[labels] @ w.T).clamp(min=MIN_DISTANCE**2)
        other = torch.ones_like(square, dtype=torch.bool)
        other[torch.arange(len(labels)), labels] = False
        distance = square.sqrt()[other]
    distance = distance.clamp(min=MIN_DISTANCE)
    return (-torch.log(distance)).mean() if power == 0 else distance.pow(-power).mean()


@torch.no_grad()
def class_angles(weight: Tensor, most: int = 2048) -> tuple[float, float]:
    """Mean and smallest angle in radians between different class centers (C, D); of every so-manieth where
    there are more than `most`, since all pairs of many would not fit into memory."""
    w = F.normalize(weight[:: -(-len(weight) // most)].float(), dim=1)
    upper = torch.triu_indices(len(w), len(w), 1)
    theta = torch.acos((w @ w.T).clamp(-1, 1)[upper[0], upper[1]])
    return float(theta.mean()), float(theta.min())
