"""SphereFace2 (Wen et al., ICLR 2022), variant C: one binary classifier per identity instead of a softmax."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from training.heads.margin import GradMode, cosines, detach_margin


def similarity_adjustment(cosine: Tensor, t: float) -> Tensor:
    """g(c) = 2((c + 1)/2)^t − 1: spreads the crowded small cosines."""
    return 2 * ((cosine + 1) / 2).pow(t) - 1


def initial_bias(classes: int, alpha: float, r: float, m: float, t: float) -> float:
    """The bias whose gradient vanishes when all angles are right ones, as at the start of training."""
    z = alpha / ((1 - alpha) * (classes - 1))
    at_right_angle = 2 * float(0.5**t) - 1
    own, other = r * (at_right_angle - m), r * (at_right_angle + m)
    return math.log(2 * z) - other - math.log(1 - z + math.sqrt((1 - z) ** 2 + 4 * z * math.exp(own - other)))


class SphereFace2Head(nn.Module):
    """Logits r(g(cosθ) − m) + b for the own class, r(g(cosθ) + m) + b for the others, binary cross-entropy.

    alpha: weight of the positive against the negatives. loss_weight: lw; a face's loss is lw·N/r times the
    mean over its N binary losses.
    """

    def __init__(
        self,
        classes: int,
        dim: int,
        *,
        alpha: float = 0.7,
        r: float = 40.0,
        m: float = 0.4,
        t: float = 3.0,
        loss_weight: float = 10.0,
        mode: GradMode = "detached",
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.normal_(self.weight, std=0.01)
        self.bias = nn.Parameter(torch.tensor(initial_bias(classes, alpha, r, m, t)))
        self.alpha, self.r, self.m, self.t = alpha, r, m, t
        self.loss_weight, self.mode = loss_weight, mode

    def binary_losses(self, cosine: Tensor, labels: Tensor, strength: float) -> Tensor:
        """(B, C) cosines and (B,) labels ≥ 0 to (B, C) weighted binary losses."""
        own = F.one_hot(labels, cosine.shape[1]).to(cosine.dtype)
        value = similarity_adjustment(cosine, self.t) + self.m * strength * (1 - 2 * own)
        if self.mode != "exact":
            value = detach_margin(cosine, value)
        losses = F.binary_cross_entropy_with_logits(self.r * value + self.bias, own, reduction="none")
        return losses * torch.where(own > 0, self.alpha, 1 - self.alpha)

    def forward(self, embeddings: Tensor, labels: Tensor, strength: float = 1.0) -> Tensor:
        """(B, D) embeddings and (B,) labels, −1 for none, to (B,) losses, 0 where there is no label."""
        with torch.autocast(embeddings.device.type, enabled=False):
            losses = self.binary_losses(cosines(embeddings, self.weight), labels.clamp(min=0), strength)
            return self.loss_weight / self.r * losses.sum(dim=1) * (labels >= 0)
