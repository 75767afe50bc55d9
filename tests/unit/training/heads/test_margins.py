"""The margin core against the formulas of the papers, written again with angles."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sphereid_training.heads.annealing import Annealing
from sphereid_training.heads.margin import (
    AdditiveAngle,
    AdditiveCosine,
    MagnitudeAware,
    Margin,
    MultiplicativeAngle,
    Plain,
    QualityAdaptive,
    SphereFaceR,
    angle,
    apply_margin,
    cosines,
    psi,
    released_logits,
)
from torch import Tensor

ALL: list[Margin] = [
    Plain(),
    MultiplicativeAngle(2),
    MultiplicativeAngle(3),
    MultiplicativeAngle(4),
    SphereFaceR("v0", 1.5),
    SphereFaceR("v1", 1.5),
    SphereFaceR("v2", 1.4),
    AdditiveCosine(0.35),
    AdditiveAngle(0.5),
    QualityAdaptive(20.0, 5.0),
    MagnitudeAware(),
]


def psi_by_angle(theta: float, m: int) -> float:
    k = min(int(m * theta / math.pi), m - 1)
    return (-1) ** k * math.cos(m * theta) - 2 * k


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_psi_starts_at_one_ends_at_1_minus_2m_and_never_rises(m: int) -> None:
    cosine = torch.cos(torch.linspace(0, math.pi, 20001, dtype=torch.float64))
    value = psi(cosine, m)
    assert value[0] == pytest.approx(1)
    assert value[-1] == pytest.approx(1 - 2 * m)
    step = value.diff()
    assert step.max() < 1e-12
    assert step.min() > -m * math.pi / 20000 * 1.01


@given(theta=st.floats(0, math.pi), m=st.integers(1, 4))
def test_psi_without_acos_is_the_papers_formula(theta: float, m: int) -> None:
    value = psi(torch.tensor([math.cos(theta)], dtype=torch.float64), m).item()
    # acos loses half the digits near the poles, hence not 1e-15.
    assert value == pytest.approx(psi_by_angle(theta, m), abs=1e-6)


def test_psi_rejects_other_m() -> None:
    with pytest.raises(ValueError, match="1, 2, 3 or 4"):
        psi(torch.zeros(1), 5)


@pytest.mark.parametrize("m", [2, 3, 4])
def test_v0_with_integer_m_is_psi(m: int) -> None:
    cosine = torch.linspace(-0.999, 0.999, 999, dtype=torch.float64)
    assert torch.allclose(SphereFaceR("v0", m)(cosine, cosine), psi(cosine, m), atol=1e-9)


def test_lambda_golden_values() -> None:
    anneal = Annealing()
    golden = {1: 892.86, 10: 454.55, 100: 76.92, 1000: 8.26, 1659: 5.0, 100_000: 5.0}
    assert {t: round(anneal(t), 2) for t in golden} == golden
    assert anneal(1658) > 5
    clcarwin = Annealing(1500, 0.1, 1, 5)
    assert clcarwin(10) == pytest.approx(750)
    large = Annealing(1000, 2.5e-5, 35, 0)
    assert large(1000) == pytest.approx(1000 * 1.025**-35)


def test_v1_beyond_pi_gives_minus_one_and_finite_gradients() -> None:
    cosine = torch.tensor([-0.9, -1.0], requires_grad=True)
    value = SphereFaceR("v1", 2.0)(cosine, cosine)
    value.sum().backward()
    assert torch.allclose(value, torch.tensor([-1.0, -1.0]))
    assert cosine.grad is not None
    assert torch.isfinite(cosine.grad).all()


def test_values_at_a_right_angle() -> None:
    zero, norm = torch.zeros(1), torch.full((1,), 60.0)
    assert AdditiveCosine(0.35)(zero, norm).item() == pytest.approx(-0.35)
    assert AdditiveAngle(0.5)(zero, norm).item() == pytest.approx(-math.sin(0.5), abs=1e-6)
    assert SphereFaceR("v2", 1.4)(zero, norm).item() == pytest.approx(math.cos(math.pi / 2.8), abs=1e-6)
    m = 0.45 + 0.35 * (60 - 10) / 100
    assert MagnitudeAware()(zero, norm).item() == pytest.approx(-math.sin(m), abs=1e-6)


def test_adaface_at_its_three_qualities() -> None:
    margin = QualityAdaptive(20.0, 5.0, m=0.4, h=1.0)
    theta = math.pi / 3
    cosine = torch.full((3,), math.cos(theta))
    value = margin(cosine, torch.tensor([20.0, 1000.0, 1e-3]))
    expected = [math.cos(theta) - 0.4, math.cos(theta - 0.4) - 0.8, math.cos(theta + 0.4)]
    assert value.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("margin", ALL, ids=repr)
@pytest.mark.parametrize("mode", ["exact", "detached"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_are_finite_at_both_poles(margin: Margin, mode: str, dtype: torch.dtype) -> None:
    x = torch.tensor([[2.0, 0, 0], [-2.0, 0, 0], [0, 3.0, 0]], dtype=dtype, requires_grad=True)
    w = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    value = apply_margin(margin, cosines(x, w), labels, x.float().norm(dim=1), mode=mode)  # type: ignore[arg-type]
    assert value.dtype == torch.float32
    (value * torch.arange(1.0, 7).reshape(3, 2)).sum().backward()
    assert torch.isfinite(value).all()
    for leaf in (x, w):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("margin", ALL, ids=repr)
def test_detached_margins_have_softmaxs_gradient(margin: Margin) -> None:
    """With detachment the gradient by cosθ is s·(p − 1[y]) for every margin, p of the margin's own logits."""
    generator = torch.Generator().manual_seed(1)
    cosine = (torch.rand(5, 7, generator=generator) * 1.8 - 0.9).requires_grad_(True)
    labels = torch.tensor([0, 1, 2, 3, 6])
    s = 30.0
    logits = s * apply_margin(margin, cosine, labels, torch.full((5,), 25.0), mode="detached")
    torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
    expected = s * (torch.softmax(logits.detach(), 1) - torch.nn.functional.one_hot(labels, 7))
    assert cosine.grad is not None
    assert torch.allclose(cosine.grad, expected, atol=1e-5)


@pytest.mark.parametrize("margin", ALL, ids=repr)
def test_exact_mode_passes_gradcheck(margin: Margin) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    w = torch.randn(6, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.tensor([0, 2, 4, 5])

    def logits(x: Tensor, w: Tensor) -> Tensor:
        norms = torch.full((4,), 33.0, dtype=torch.float64)
        # Lengths are fixed: AdaFace detaches them, and MagFace's clamp has a corner.
        return apply_margin(margin, cosines(x, w), labels, norms, mode="exact")

    assert torch.autograd.gradcheck(logits, (x, w), eps=1e-6, atol=1e-6)


def test_magface_differentiates_its_length() -> None:
    norms = torch.tensor([40.0], requires_grad=True)
    value = MagnitudeAware()(torch.tensor([0.3]), norms)
    (gradient,) = torch.autograd.grad(value, norms)
    h = 0.5
    high = MagnitudeAware()(torch.tensor([0.3]), torch.tensor([40 + h])).item()
    low = MagnitudeAware()(torch.tensor([0.3]), torch.tensor([40 - h])).item()
    assert gradient.item() == pytest.approx((high - low) / (2 * h), rel=1e-2)


def test_only_the_own_class_or_only_the_others_change() -> None:
    cosine = torch.linspace(-0.8, 0.8, 12).reshape(3, 4)
    labels, norms = torch.tensor([1, 2, 3]), torch.ones(3)
    own = torch.nn.functional.one_hot(labels, 4).bool()
    target = apply_margin(AdditiveCosine(0.2), cosine, labels, norms, mode="exact")
    others = apply_margin(SphereFaceR("v2", 1.4), cosine, labels, norms, mode="exact")
    assert torch.equal(target[~own], cosine[~own])
    assert torch.allclose(target[own], cosine[own] - 0.2)
    assert torch.equal(others[own], cosine[own])
    assert torch.allclose(others[~own], torch.cos(angle(cosine[~own]) / 1.4))


def test_strength_mixes_the_margin_in() -> None:
    cosine, labels = torch.tensor([[0.5, 0.1]]), torch.tensor([0])
    margin = MultiplicativeAngle(4)
    values = [
        apply_margin(margin, cosine, labels, torch.ones(1), mode="exact", strength=s)[0, 0].item()
        for s in (0.0, 0.25, 1.0)
    ]
    assert values[0] == pytest.approx(0.5)
    assert values[1] == pytest.approx(0.75 * 0.5 + 0.25 * values[2])
    assert all(a >= b for a, b in pairwise(values))


@pytest.mark.parametrize("m", [2, 3, 4])
def test_released_gradients_are_the_stated_ones(m: int) -> None:
    """δ_y[λw/(1+λ) + (a·w + b·x)/((1+λ)√(a²+b²))] to x, with the polynomials' derivatives; δᵀx to W."""
    rng = np.random.default_rng(m)
    x = rng.normal(size=(6, 5))
    w = rng.normal(size=(4, 5))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    labels = np.array([0, 1, 2, 3, 0, 1])
    delta = rng.normal(size=(6, 4))
    lam = 7.0
    tx = torch.tensor(x, requires_grad=True)
    tw = torch.tensor(w, requires_grad=True)
    logits = released_logits(MultiplicativeAngle(m), tx, tw, torch.tensor(labels), lam=lam)
    logits.backward(torch.tensor(delta))

    expected_x, expected_logits = np.zeros_like(x), x @ w.T
    for i, y in enumerate(labels):
        norm = np.linalg.norm(x[i])
        c = w[y] @ x[i] / norm
        s0, s1 = np.sign(c), np.sign(abs(c) - 0.5)
        s3 = s0 * np.sign(2 * c * c - 1)
        a = {2: 4 * s0 * c, 3: s1 * (12 * c**2 - 3), 4: s3 * (32 * c**3 - 16 * c)}[m]
        value = psi_by_angle(math.acos(c), m)
        b = (value - c * a) / norm
        expected_logits[i, y] = norm * (lam * c + value) / (1 + lam)
        for j in range(4):
            if j != y:
                expected_x[i] += delta[i, j] * w[j]
        direction = (a * w[y] + b * x[i]) / math.hypot(a, b)
        expected_x[i] += delta[i, y] * (lam * w[y] + direction) / (1 + lam)
    assert logits.detach().numpy() == pytest.approx(expected_logits, abs=1e-9)
    assert tx.grad is not None
    assert tw.grad is not None
    assert tx.grad.numpy() == pytest.approx(expected_x, abs=1e-9)
    assert tw.grad.numpy() == pytest.approx(delta.T @ x, abs=1e-9)
