"""The margin core: pure functions from cosines to what takes their place, and one gradient rule for all of
them.

Every margin is elementwise and computed in float32. θ = acos(cosine) is clamped a little inside (0, π), so
that gradients stay finite at the poles.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

GradMode = Literal["exact", "normalized", "detached"]
POLE = 1e-5


class Margin(Protocol):
    """A rule that makes recognizing one's own class harder.

    `applies_to` says which cosines it changes: that with the own class center, or those with all others.
    """

    @property
    def applies_to(self) -> Literal["target", "others"]:
        """`target` or `others`."""
        ...

    def __call__(self, cosine: Tensor, norms: Tensor) -> Tensor:
        """Cosines in [−1, 1] and embedding lengths of the same or a broadcastable shape to new values."""
        ...


def cosines(embeddings: Tensor, weight: Tensor) -> Tensor:
    """(B, C) cosines in [−1, 1] between (B, D) embeddings and (C, D) class centers, at least float32."""
    x = F.normalize(_wide(embeddings), dim=1)
    w = F.normalize(_wide(weight), dim=1)
    return (x @ w.T).clamp(-1.0, 1.0)


def angle(cosine: Tensor) -> Tensor:
    """θ in (0, π), with finite gradients everywhere (0 within 1e-5 of the poles' cosines)."""
    return torch.acos(cosine.clamp(-1 + POLE, 1 - POLE))


def detach_margin(cosine: Tensor, value: Tensor) -> Tensor:
    """Characteristic gradient detachment: forward `value`, gradient of the plain cosine.

    Liu et al., "SphereFace Revived" (TPAMI 2022): cosθ + stopgrad(φ(θ) − cosθ).
    """
    return cosine + (value - cosine).detach()


def psi(cosine: Tensor, m: int) -> Tensor:
    """ψ(θ) = (−1)^k cos(mθ) − 2k, k = ⌊mθ/π⌋, without acos, for m = 1…4.

    Liu et al., "SphereFace" (CVPR 2017), eq. 7, in the Chebyshev form of the released Caffe layer.
    """
    c, s0 = cosine, torch.sign(cosine)
    if m == 1:
        return c
    if m == 2:
        return 2 * s0 * c**2 - 1
    if m == 3:
        s1 = torch.sign(c.abs() - 0.5)
        return s1 * (4 * c**3 - 3 * c) + s0 * (1 + s1) - 2
    if m == 4:
        s3 = s0 * torch.sign(2 * c**2 - 1)
        return s3 * (8 * c**4 - 8 * c**2 + 1) + 2 * s0 + s3 - 3
    raise ValueError(f"m must be 1, 2, 3 or 4, got {m}")


@dataclass(frozen=True, slots=True)
class Plain:
    """No margin: normalized softmax (Wang et al., NormFace, 2017)."""

    applies_to: Literal["target", "others"] = "target"

    def __call__(self, cosine: Tensor, norms: Tensor) -> Tensor:
        return cosine


@dataclass(frozen=True, slots=True)
class MultiplicativeAngle:
    """ψ(θ) with integer m, of L-Softmax (Liu et al., ICML 2016) and A-Softmax (SphereFace)."""

    m: int = 4
    applies_to: Literal["target", "others"] = "target"

    def __call__(self, cosine: Tensor, norms: Tensor) -> Tensor:
        return psi(cosine, self.m)


@dataclass(frozen=True, slots=True)
class SphereFaceR:
    """SphereFace-R's characteristic functions (SphereFace Revived), m real and at least 1.

    v0: (−1)^k cos(mθ) − 2k on the target. v1: cos(min(mθ, π)) on the target. v2: cos(θ/m) on all others.
    """

    version: Literal["v0", "v1", "v2"] = "v2"
    m: float = 1.4

    @property
    def applies_to(self) -> Literal["target", "others"]:
        return "others" if self.version == "v2" else "target"

    def __call__(self, cosine: Tensor, norms: Tensor) -> Tensor:
        theta = angle(cosine)
        if self.version == "v2":
            return torch.cos(theta / self.m)
        wide = self.m * theta
        if self.version == "v1":
            return torch.cos(wide.clamp(max=math.pi))
        k = torch.floor(wide.detach() / math.pi)
        return (1 - 2 * (k % 2)) * torch.cos(wide) - 2 * k


@dataclass(frozen=True, slots=True)
class AdditiveCosine:
    """cosθ − m: CosFace (Wang et al., CVPR 2018), AM-Softmax."""

    m: float = 0.35
    applies_to: Literal["target", "others"] = "target"

    def __call__(self, cosine: Tensor, norms: Tensor) -> Tensor:
        return cosine - self.m


@dataclass(frozen=True, slots=True)
class AdditiveAngle:
    """cos(min(θ + m, π)): ArcFace (Deng et al., CVPR 2019)."""

    m: float = 0.5
    applies_to: Literal["target", "others"] = "target"

    def __call__(self, cosine: Tensor, norms: Tensor) -> Tensor:
        return torch.cos((angle(cosine) + self.m).clamp(max=math.pi))


@dataclass(frozen=True, slots=True)
class QualityAdaptive:
    """cos(θ − mẑ) − (mẑ + m): AdaFace (Kim et al., CVPR 2022). The margin leans to hard faces when they are
    good.

    ẑ = clip(h(‖z‖ − mean)/(std + 1e-3), −1, 1), with running mean and std of the lengths.
    """

    mean: float
    std: float
    m: float = 0.4
    h: float = 0.333
    applies_to: Literal["target", "others"] = "target"

    def __call__(self, cosine: Tensor, norms: Tensor) -> Tensor:
        z = (self.h * (norms.detach() - self.mean) / (self.std + 1e-3)).clamp(-1.0, 1.0)
        theta = (angle(cosine) - self.m * z).clamp(0.0, math.pi)
        return torch.cos(theta) - (self.m * z + self.m)


@dataclass(frozen=True, slots=True)
class MagnitudeAware:
    """cos(min(θ + m(a), π)), m linear in the length a: MagFace (Meng et al., CVPR 2021)."""

    low: float = 10.0
    high: float = 110.0
    m_low: float = 0.45
    m_high: float = 0.8
    applies_to: Literal["target", "others"] = "target"

    def __call__(self, cosine: Tensor, norms: Tensor) -> Tensor:
        a = norms.clamp(self.low, self.high)
        m = self.m_low + (self.m_high - self.m_low) * (a - self.low) / (self.high - self.low)
        return torch.cos((angle(cosine) + m).clamp(max=math.pi))


def apply_margin(
    margin: Margin, cosine: Tensor, labels: Tensor, norms: Tensor, *, mode: GradMode, strength: float = 1.0
) -> Tensor:
    """(B, C) cosines with the margin in place.

    labels: (B,) own classes. norms: (B,) embedding lengths. strength: share of the margin in force; between 0
    and 1 the cosine and the margin's value are mixed, as λ-annealing does.
    mode: `exact` differentiates the margin, `detached` passes the plain cosine's gradient, and so does
    `normalized` here: a gradient scaled to the plain one's length is the plain one, as long as the length of
    the embedding does not enter the logit (where it does, see `released_logits`).
    """
    own = F.one_hot(labels, cosine.shape[1]).bool()
    value = margin(cosine, norms[:, None])
    if strength < 1:
        value = cosine + strength * (value - cosine)
    if mode != "exact":
        value = detach_margin(cosine, value)
    return torch.where(own if margin.applies_to == "target" else ~own, value, cosine)


def margin_slope(margin: Margin, cosine: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
    """Value and derivative by the cosine of an elementwise margin, both without a graph."""
    with torch.enable_grad():
        leaf = cosine.detach().requires_grad_(True)
        value = margin(leaf, norms)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), slope


class _Released(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        weight: Tensor,
        labels: Tensor,
        value: Tensor,
        slope: Tensor,
        lam: float,
    ) -> Tensor:
        rows = torch.arange(len(x), device=x.device)
        norms = x.norm(dim=1).clamp(min=1e-12)
        logits = x @ weight.T
        cosine = logits[rows, labels] / norms
        logits[rows, labels] = norms * (lam * cosine + value) / (1 + lam)
        ctx.save_for_backward(x, weight, labels, value, slope, cosine, norms)
        ctx.lam = lam  # type: ignore[attr-defined]
        return logits

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, labels, value, slope, cosine, norms = ctx.saved_tensors  # type: ignore[attr-defined]
        lam: float = ctx.lam  # type: ignore[attr-defined]
        rows = torch.arange(len(x), device=x.device)
        own = delta[rows, labels][:, None]
        others = delta.clone()
        others[rows, labels] = 0
        b = (value - cosine * slope) / norms
        length = torch.sqrt(slope**2 + b**2).clamp(min=1e-12)
        w = weight[labels]
        direction = (slope[:, None] * w + b[:, None] * x) / length[:, None]
        grad_x = others @ weight + own * (lam * w + direction) / (1 + lam)
        return grad_x, delta.T @ x, None, None, None, None


def released_logits(
    margin: Margin, embeddings: Tensor, weight: Tensor, labels: Tensor, *, lam: float = 0.0
) -> Tensor:
    """(B, C) logits f_j = w_j·x, f_y = ‖x‖(λ cosθ + ψ)/(1+λ), with the gradients of the released Caffe layer.

    weight: (C, D) rows of length 1. To x flows δ_y[λw + (a·w + b·x)/√(a² + b²)]/(1+λ) with a = dψ/dc and
    b = (ψ − c·a)/‖x‖; to W the plain linear δᵀx. Not the derivative of the forward pass.
    """
    x, w = _wide(embeddings), _wide(weight)
    with torch.no_grad():
        norms = x.norm(dim=1).clamp(min=1e-12)
        cosine = ((x * w[labels]).sum(dim=1) / norms).clamp(-1.0, 1.0)
    value, slope = margin_slope(margin, cosine, norms)
    logits: Tensor = _Released.apply(x, w, labels, value, slope, lam)  # type: ignore[no-untyped-call]
    return logits


def _wide(x: Tensor) -> Tensor:
    """float32 at least: half precision can't tell small angles apart."""
    return x if x.dtype == torch.float64 else x.float()
