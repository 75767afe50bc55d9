"""Heads with class centers: cosines or dot products, a margin on them, cross-entropy."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sphereid_training.heads.annealing import Annealing
from sphereid_training.heads.energy import hyperspherical_energy
from sphereid_training.heads.margin import (
    GradMode,
    Margin,
    QualityAdaptive,
    apply_margin,
    cosines,
    released_logits,
)
from sphereid_training.heads.sampling import sample_classes

Scheme = Literal["NFN", "HFN", "SFN"]


class SoftmaxHead(nn.Module):
    """Plain softmax cross-entropy over W·x + b."""

    loss_weight = 1.0

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dim))
        self.bias = nn.Parameter(torch.zeros(classes))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, embeddings: Tensor, labels: Tensor, strength: float = 1.0) -> Tensor:
        """(B, D) embeddings and (B,) labels, −1 for none, to (B,) losses, 0 where there is no label."""
        with torch.autocast(embeddings.device.type, enabled=False):
            logits = embeddings.float() @ self.weight.T + self.bias
            return F.cross_entropy(logits, labels.clamp(min=0), reduction="none") * (labels >= 0)


class MarginHead(nn.Module):
    """Class centers on the sphere with a margin.

    margin: the rule. scale: s of the logits s·cosθ, or None for ‖x‖·cosθ. loss_weight multiplies the
    cross-entropy. annealing: λ schedule of A-Softmax; its step is saved with the head. keep_length: logits
    use the centers' own lengths too (L-Softmax). sample_rate: share of classes in the softmax of a step
    (Partial FC); 1 takes all. norm_penalty: added per face, from its length. energy, energy_weight:
    SphereFace+. stepped: the margin at a strength of 0 to 1, where it grows by its own m; otherwise strength
    mixes it with the plain cosine.
    """

    step: Tensor

    def __init__(
        self,
        classes: int,
        dim: int,
        margin: Margin,
        *,
        mode: GradMode = "exact",
        scale: float | None = None,
        loss_weight: float = 1.0,
        annealing: Annealing | None = None,
        keep_length: bool = False,
        sample_rate: float = 1.0,
        norm_penalty: Callable[[Tensor], Tensor] | None = None,
        energy: Literal["none", "euclid", "angular"] = "none",
        energy_weight: float = 0.1,
        stepped: Callable[[float], Margin] | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.normal_(self.weight, std=0.01)
        if annealing is not None:
            self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.margin, self.mode, self.scale, self.loss_weight = margin, mode, scale, loss_weight
        self.annealing, self.keep_length, self.sample_rate = annealing, keep_length, sample_rate
        self.norm_penalty, self.energy, self.energy_weight = norm_penalty, energy, energy_weight
        self.stepped = stepped

    @property
    def lam(self) -> float:
        """λ of the optimizer step last begun; 0 without annealing."""
        return self.annealing(max(1, int(self.step))) if self.annealing is not None else 0.0

    def begin_step(self) -> None:
        """Count one optimizer step for λ, however many micro-batches it is made of."""
        if self.annealing is not None:
            self.step += 1

    def margin_share(self, strength: float) -> float:
        """How much of the margin acts in the step last begun, 0 to 1: strength/(1 + λ)."""
        return strength / (1 + self.lam)

    def current_margin(self, norms: Tensor) -> Margin:
        """The margin for embeddings of these lengths."""
        return self.margin

    def logits(self, embeddings: Tensor, labels: Tensor, weight: Tensor, strength: float) -> Tensor:
        """(B, C') logits. labels: (B,), all ≥ 0, rows of weight (C', D)."""
        norms = embeddings.float().norm(dim=1).clamp(min=1e-6)
        margin = self.current_margin(norms)
        if self.stepped is not None:
            margin, strength = self.stepped(strength), 1.0
        if self.scale is None and self.mode == "normalized" and margin.applies_to == "target":
            return released_logits(margin, embeddings, weight, labels, lam=self.lam)
        cosine = cosines(embeddings, weight)
        share = self.margin_share(strength)
        value = apply_margin(margin, cosine, labels, norms, mode=self.mode, strength=share)
        if self.scale is not None:
            scaled: Tensor = value * self.scale
            return scaled
        lengths = norms[:, None] * weight.float().norm(dim=1) if self.keep_length else norms[:, None]
        logits: Tensor = value * lengths
        return logits

    def forward(self, embeddings: Tensor, labels: Tensor, strength: float = 1.0) -> Tensor:
        """(B, D) embeddings and (B,) labels, −1 for none, to (B,) losses, 0 where there is no label."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._losses(embeddings.float(), labels, strength)

    def _losses(self, embeddings: Tensor, labels: Tensor, strength: float) -> Tensor:
        known = labels >= 0
        if self.scale is None and self.mode == "normalized":
            # The released layer renormalizes its rows in place before every forward pass.
            with torch.no_grad():
                self.weight.copy_(F.normalize(self.weight, dim=1))
        weight: Tensor = self.weight
        own = labels.clamp(min=0)
        if self.sample_rate < 1 and self.training:
            picked = sample_classes(labels, len(weight), self.sample_rate)
            weight, own = weight[picked], torch.searchsorted(picked, own).clamp(max=len(picked) - 1)
        logits = self.logits(embeddings, own, weight, strength)
        losses = self.loss_weight * F.cross_entropy(logits, own, reduction="none")
        if self.norm_penalty is not None:
            losses = losses + self.norm_penalty(embeddings.norm(dim=1).clamp(min=1e-6))
        if self.energy != "none" and bool(known.any()):
            losses = losses + self.energy_weight * hyperspherical_energy(
                self.weight, labels[known], self.energy
            )
        return losses * known


class AdaFaceHead(MarginHead):
    """AdaFace keeps running statistics of the embeddings' lengths, saved with the head."""

    norm_mean: Tensor
    norm_std: Tensor

    def __init__(self, classes: int, dim: int, *, m: float, h: float, mode: GradMode, scale: float) -> None:
        super().__init__(classes, dim, QualityAdaptive(20.0, 100.0, m, h), mode=mode, scale=scale)
        self.register_buffer("norm_mean", torch.tensor(20.0))
        self.register_buffer("norm_std", torch.tensor(100.0))
        self._m, self._h = m, h

    @torch.no_grad()
    def current_margin(self, norms: Tensor) -> Margin:
        """Mixes the batch's mean and deviation of the lengths in (weight 0.01) while training."""
        safe = norms.detach().clamp(1e-3, 100.0)
        if self.training and len(safe) > 1:
            self.norm_mean.lerp_(safe.mean(), 0.01)
            self.norm_std.lerp_(safe.std(), 0.01)
        return QualityAdaptive(float(self.norm_mean), float(self.norm_std), self._m, self._h)
