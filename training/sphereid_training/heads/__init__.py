"""Heads by name: margin losses over identities."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from sphereid_training.config import HeadConfig
from sphereid_training.errors import TrainingError
from sphereid_training.heads.annealing import Annealing
from sphereid_training.heads.classifier import AdaFaceHead, MarginHead, SoftmaxHead
from sphereid_training.heads.margin import (
    AdditiveAngle,
    AdditiveCosine,
    MagnitudeAware,
    MultiplicativeAngle,
    Plain,
    SphereFaceR,
)
from sphereid_training.heads.sphereface2 import SphereFace2Head

Options = dict[str, Any]
Builder = Callable[[int, int, Any, Options], nn.Module]


def _take(options: Options, **defaults: Any) -> list[Any]:
    """Pop named options, with defaults that also fix their type."""
    taken = []
    for name, default in defaults.items():
        value = options.pop(name, default)
        taken.append(type(default)(value) if default is not None else value)
    return taken


def _softmax(classes: int, dim: int, mode: Any, options: Options) -> nn.Module:
    return SoftmaxHead(classes, dim)


def _normalized_softmax(classes: int, dim: int, mode: Any, options: Options) -> nn.Module:
    (s,) = _take(options, s=30.0)
    return MarginHead(classes, dim, Plain(), mode=mode, scale=s)


def _a_softmax(classes: int, dim: int, mode: Any, options: Options) -> nn.Module:
    m, base, gamma, power, least = _take(options, m=4, base=1000.0, gamma=0.12, power=1.0, lambda_min=5.0)
    energy, weight = _take(options, mhe="none", mhe_weight=0.1)
    annealing = Annealing(base, gamma, power, least) if m > 1 else None
    return MarginHead(
        classes,
        dim,
        MultiplicativeAngle(m),
        mode=mode,
        annealing=annealing,
        energy=energy,
        energy_weight=weight,
    )


def _l_softmax(classes: int, dim: int, mode: Any, options: Options) -> nn.Module:
    m, base, gamma, power, least = _take(options, m=4, base=1000.0, gamma=2.5e-5, power=35.0, lambda_min=5.0)
    annealing = Annealing(base, gamma, power, least) if m > 1 else None
    return MarginHead(classes, dim, MultiplicativeAngle(m), mode=mode, annealing=annealing, keep_length=True)


def _milestones(listed: str) -> list[float]:
    try:
        shares = [float(share) for share in listed.split()]
    except ValueError:
        shares = [-1.0]
    if shares != sorted(shares) or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"milestones are ascending shares of head.warmup, such as '0.5 1', not {listed!r}")
    return shares


def _sphereface_r(classes: int, dim: int, mode: Any, options: Options) -> nn.Module:
    version, scheme, m, s, lw, t = _take(options, version="v2", scheme="HFN", m=1.4, s=60.0, lw=50.0, t=0.01)
    energy, weight, listed = _take(options, mhe="none", mhe_weight=0.1, milestones="")
    milestones = _milestones(listed)
    if version not in ("v0", "v1", "v2") or scheme not in ("NFN", "HFN", "SFN"):
        raise TrainingError(
            f"sphereface_r has versions v0, v1, v2 and schemes NFN, HFN, SFN, not {version}-{scheme}"
        )

    def pull(norms: Tensor) -> Tensor:
        penalty: Tensor = t * (norms - s).abs()
        return penalty

    def at(strength: float) -> SphereFaceR:
        passed = sum(strength >= milestone for milestone in milestones)
        return SphereFaceR(version, 1 + (m - 1) * passed / len(milestones))

    return MarginHead(
        classes,
        dim,
        SphereFaceR(version, m),
        mode=mode,
        scale=s if scheme == "HFN" else None,
        loss_weight=lw if scheme == "NFN" else lw / s,
        norm_penalty=pull if scheme == "SFN" else None,
        energy=energy,
        energy_weight=weight,
        stepped=at if milestones else None,
    )


def _cosface(classes: int, dim: int, mode: Any, options: Options) -> nn.Module:
    s, m, rate, energy, weight = _take(options, s=64.0, m=0.35, sample_rate=1.0, mhe="none", mhe_weight=0.1)
    return MarginHead(
        classes,
        dim,
        AdditiveCosine(m),
        mode=mode,
        scale=s,
        sample_rate=rate,
        energy=energy,
        energy_weight=weight,
    )


def _arcface(classes: int, dim: int, mode: Any, options: Options) -> nn.Module:
    s, m, rate = _take(options, s=64.0, m=0.5, sample_rate=1.0)
    return MarginHead(classes, dim, AdditiveAngle(m), mode=mode, scale=s, sample_rate=rate)


def _adaface(classes: int, dim: int, mode: Any, options: Options) -> nn.Module:
    s, m, h = _take(options, s=64.0, m=0.4, h=0.333)
    return AdaFaceHead(classes, dim, m=m, h=h, mode=mode, scale=s)


def _magface(classes: int, dim: int, mode: Any, options: Options) -> nn.Module:
    s, low, high, m_low, m_high, pull = _take(
        options, s=64.0, low=10.0, high=110.0, m_low=0.45, m_high=0.8, norm_weight=20.0
    )

    def lengthen(norms: Tensor) -> Tensor:
        a = norms.clamp(low, high)
        penalty: Tensor = pull * (1 / a + a / high**2)
        return penalty

    margin = MagnitudeAware(low, high, m_low, m_high)
    return MarginHead(classes, dim, margin, mode=mode, scale=s, norm_penalty=lengthen)


def _sphereface2(classes: int, dim: int, mode: Any, options: Options) -> nn.Module:
    variant, alpha, r, t, lw = _take(options, variant="C", alpha=0.7, r=40.0, t=3.0, lw=10.0)
    (m,) = _take(options, m=None)
    return SphereFace2Head(
        classes,
        dim,
        variant=variant,
        alpha=alpha,
        r=r,
        m=None if m is None else float(m),
        t=t,
        loss_weight=lw,
        mode=mode,
    )


_BUILDERS: dict[str, Builder] = {
    "softmax": _softmax,
    "normalized_softmax": _normalized_softmax,
    "l_softmax": _l_softmax,
    "a_softmax": _a_softmax,
    "sphereface_r": _sphereface_r,
    "cosface": _cosface,
    "arcface": _arcface,
    "adaface": _adaface,
    "magface": _magface,
    "sphereface2": _sphereface2,
}


def names() -> list[str]:
    """Every head that a recipe can name."""
    return sorted(_BUILDERS)


def build(config: HeadConfig, classes: int, dim: int) -> nn.Module:
    """A head over `classes` identities on embeddings of length `dim`.

    Raises TrainingError for an unknown name or option.
    """
    if config.name not in _BUILDERS:
        raise TrainingError(f"unknown head {config.name!r}; choose from {', '.join(names())}")
    options: Options = dict(config.options)
    if "milestones" in options and config.warmup <= 0:
        raise TrainingError("head.options.milestones are shares of head.warmup, which is 0")
    try:
        head = _BUILDERS[config.name](classes, dim, config.grad_mode, options)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"head.options of {config.name}: {error}") from None
    if options:
        raise TrainingError(f"head {config.name} has no option {', '.join(sorted(options))}")
    return head
