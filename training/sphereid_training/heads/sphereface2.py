"""SphereFace2 (Wen et al., ICLR 2022): one binary classifier per identity instead of a softmax."""

import math
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sphereid_training.heads.margin import AdditiveAngle, GradMode, SphereFaceR, cosines, detach_margin

Variant = Literal["C", "A", "M"]
MARGINS: Final[dict[Variant, float]] = {"C": 0.4, "A": 0.5, "M": 1.7}
"""The paper's margins."""


def similarity_adjustment(cosine: Tensor, t: float) -> Tensor:
    """g(c) = 2((c + 1)/2)^t − 1: spreads the crowded small cosines."""
    return 2 * ((cosine + 1) / 2).pow(t) - 1


def adjusted(cosine: Tensor, own: Tensor, variant: Variant, m: float, t: float) -> Tensor:
    """(B, C) adjusted similarities with the margin, from (B, C) cosines and the mask of own classes.

    C: g(cosθ) ∓ m, − for the own class, + for the others. A: g(cos(min(θ + m, π))) for the own class. M:
    g(cos(min(mθ, π))) for the own class. Under A and M the others have g(cosθ), as in opensphere.
    """
    if variant == "C":
        return similarity_adjustment(cosine, t) + torch.where(own, -m, m)
    margin = AdditiveAngle(m) if variant == "A" else SphereFaceR("v1", m)
    value = torch.where(own, margin(cosine, torch.ones_like(cosine)), cosine)
    return similarity_adjustment(value, t)


def initial_bias(classes: int, alpha: float, r: float, m: float, t: float, variant: Variant = "C") -> float:
    """The bias whose gradient vanishes when all angles are right ones, as at the start of training."""
    z = alpha / ((1 - alpha) * (classes - 1))
    right = torch.zeros(1, 2, dtype=torch.float64)
    own: float
    other: float
    own, other = (r * adjusted(right, torch.tensor([[True, False]]), variant, m, t)[0]).tolist()
    return math.log(2 * z) - other - math.log(1 - z + math.sqrt((1 - z) ** 2 + 4 * z * math.exp(own - other)))


class SphereFace2Head(nn.Module):
    """Logits r·(adjusted similarity) + b, binary cross-entropy for every face and class.

    variant, m: the margin; see `adjusted`. alpha: weight of the positive against the negatives.
    loss_weight: lw; a face's loss is lw·N/r times the mean over its N binary losses.
    """

    def __init__(
        self,
        classes: int,
        dim: int,
        *,
        variant: Variant = "C",
        alpha: float = 0.7,
        r: float = 40.0,
        m: float | None = None,
        t: float = 3.0,
        loss_weight: float = 10.0,
        mode: GradMode = "detached",
    ) -> None:
        super().__init__()
        if variant not in MARGINS:
            raise ValueError(f"variant must be C, A or M, got {variant}")
        self.variant, self.alpha, self.r, self.t = variant, alpha, r, t
        self.m = MARGINS[variant] if m is None else m
        self.loss_weight, self.mode = loss_weight, mode
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.normal_(self.weight, std=0.01)
        self.bias = nn.Parameter(torch.tensor(initial_bias(classes, alpha, r, self.m, t, variant)))

    def binary_losses(self, cosine: Tensor, labels: Tensor, strength: float) -> Tensor:
        """(B, C) cosines and (B,) labels ≥ 0 to (B, C) weighted binary losses."""
        own = F.one_hot(labels, cosine.shape[1]).bool()
        value = adjusted(cosine, own, self.variant, self.m, self.t)
        if strength < 1:
            plain = similarity_adjustment(cosine, self.t)
            value = plain + strength * (value - plain)
        if self.mode != "exact":
            value = detach_margin(cosine, value)
        logits = self.r * value + self.bias
        losses = F.binary_cross_entropy_with_logits(logits, own.to(logits.dtype), reduction="none")
        return losses * torch.where(own, self.alpha, 1 - self.alpha)

    def forward(self, embeddings: Tensor, labels: Tensor, strength: float = 1.0) -> Tensor:
        """(B, D) embeddings and (B,) labels, −1 for none, to (B,) losses, 0 where there is no label."""
        with torch.autocast(embeddings.device.type, enabled=False):
            losses = self.binary_losses(cosines(embeddings, self.weight), labels.clamp(min=0), strength)
            return self.loss_weight / self.r * losses.sum(dim=1) * (labels >= 0)
