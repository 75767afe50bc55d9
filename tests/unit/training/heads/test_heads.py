"""Whole heads: losses against plain NumPy, saved state, sampling, energy, options."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sphereid_training import heads
from sphereid_training.config import HeadConfig
from sphereid_training.errors import TrainingError
from sphereid_training.heads.classifier import AdaFaceHead, MarginHead
from sphereid_training.heads.energy import class_angles, hyperspherical_energy
from sphereid_training.heads.margin import MultiplicativeAngle, psi
from sphereid_training.heads.sampling import sample_classes
from sphereid_training.heads.sphereface2 import SphereFace2Head, initial_bias, similarity_adjustment
from torch.nn import functional as F  # noqa: N812

EVERY = [
    HeadConfig(name=name, grad_mode=mode)  # type: ignore[arg-type]
    for name in heads.names()
    for mode in ("exact", "normalized", "detached")
] + [
    HeadConfig(name="sphereface2", grad_mode=mode, options={"variant": variant})  # type: ignore[arg-type]
    for variant in ("A", "M")
    for mode in ("exact", "detached")
]


def batch(seed: int = 0, size: int = 12, dim: int = 8, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, dim, generator=generator) * 5
    return x, torch.randint(0, classes, (size,), generator=generator)


@pytest.mark.parametrize(
    "config", EVERY, ids=lambda c: f"{c.name}{c.options.get('variant', '')}-{c.grad_mode}"
)
def test_every_head_learns_separable_points(config: HeadConfig) -> None:
    torch.manual_seed(0)
    labels = torch.arange(30) % 3
    x = torch.nn.Parameter(2 * torch.eye(4)[labels] + torch.randn(30, 4))
    head = heads.build(config, 3, 4)
    optimizer = torch.optim.Adam([x, *head.parameters()], lr=0.1)
    head.train()
    for _ in range(100):
        optimizer.zero_grad()
        loss = head(x, labels).mean()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    unit = F.normalize(x, dim=1)
    centers = torch.stack([unit[labels == c].mean(0) for c in range(3)])
    assert ((unit @ centers.T).argmax(1) == labels).float().mean() >= 0.9


@pytest.mark.parametrize(
    "config", EVERY, ids=lambda c: f"{c.name}{c.options.get('variant', '')}-{c.grad_mode}"
)
def test_faces_without_a_label_cost_and_teach_nothing(config: HeadConfig) -> None:
    torch.manual_seed(0)
    head = heads.build(config, 5, 8)
    x, labels = batch()
    labels[::3] = -1
    x.requires_grad_(True)
    losses = head(x, labels)
    losses.sum().backward()
    assert losses.shape == (12,)
    assert losses[::3].abs().max() == 0
    assert x.grad is not None
    assert x.grad[::3].abs().max() == 0
    assert x.grad[1::3].abs().min(dim=0).values.max() > 0


def test_a_softmax_loss_is_the_papers() -> None:
    torch.manual_seed(0)
    head = heads.build(HeadConfig(name="a_softmax", options={"m": 4}), 5, 8)
    assert isinstance(head, MarginHead)
    x, labels = batch()
    head.step.fill_(999)
    head.begin_step()
    losses = head(x, labels).detach().numpy()
    lam = 1000 / (1 + 0.12 * 1000)
    w = head.weight.detach().numpy()
    w = w / np.linalg.norm(w, axis=1, keepdims=True)
    logits = x.numpy() @ w.T
    norms = np.linalg.norm(x.numpy(), axis=1)
    for i, y in enumerate(labels.tolist()):
        c = logits[i, y] / norms[i]
        k = min(int(4 * math.acos(c) / math.pi), 3)
        value = (-1) ** k * math.cos(4 * math.acos(c)) - 2 * k
        logits[i, y] = norms[i] * (lam * c + value) / (1 + lam)
        expected = np.log(np.exp(logits[i] - logits[i].max()).sum()) + logits[i].max() - logits[i, y]
        assert losses[i] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("mode", ["exact", "normalized", "detached"])
def test_all_modes_agree_on_the_forward_pass(mode: str) -> None:
    torch.manual_seed(0)
    heads_by_mode = [
        MarginHead(5, 8, MultiplicativeAngle(3), mode=m, annealing=None)  # type: ignore[arg-type]
        for m in ("exact", mode)
    ]
    heads_by_mode[1].load_state_dict(heads_by_mode[0].state_dict())
    x, labels = batch()
    assert torch.allclose(heads_by_mode[0](x, labels), heads_by_mode[1](x, labels), atol=1e-4)


def test_m_1_is_plain_cosine_without_lambda() -> None:
    head = heads.build(HeadConfig(name="a_softmax", options={"m": 1}), 5, 8)
    assert isinstance(head, MarginHead)
    assert head.lam == 0
    assert "step" not in head.state_dict()
    x, labels = batch()
    logits = x @ F.normalize(head.weight, dim=1).T
    assert torch.allclose(head(x, labels), F.cross_entropy(logits, labels, reduction="none"), atol=1e-5)


def test_the_annealing_step_counts_optimizer_steps_and_is_saved() -> None:
    head = heads.build(HeadConfig(name="a_softmax"), 5, 8)
    assert isinstance(head, MarginHead)
    x, labels = batch()
    for _ in range(10):
        head.begin_step()
        for _ in range(3):
            head(x, labels)
    assert head.lam == pytest.approx(454.55, abs=0.01)
    assert head.margin_share(0.5) == pytest.approx(0.5 / 455.55, rel=1e-4)
    other = heads.build(HeadConfig(name="a_softmax"), 5, 8)
    other.load_state_dict(head.state_dict())
    assert isinstance(other, MarginHead)
    assert other.lam == head.lam


def test_l_softmax_keeps_the_centers_lengths() -> None:
    head = heads.build(HeadConfig(name="l_softmax", options={"m": 2, "base": 0.0, "lambda_min": 0.0}), 5, 8)
    assert isinstance(head, MarginHead)
    x, labels = batch()
    w = head.weight.detach() * torch.arange(1.0, 6)[:, None] * 100
    with torch.no_grad():
        head.weight.copy_(w)
    logits = x @ w.T
    own = labels[:, None]
    product = x.norm(dim=1) * w.norm(dim=1)[labels]
    cosine = logits.gather(1, own)[:, 0] / product
    logits.scatter_(1, own, (product * psi(cosine, 2))[:, None])
    expected = F.cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(head(x, labels), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("scheme", "factor"), [("NFN", 50.0), ("HFN", 50.0 / 60), ("SFN", 50.0 / 60)])
def test_sphereface_r_schemes(scheme: str, factor: float) -> None:
    head = heads.build(HeadConfig(name="sphereface_r", options={"scheme": scheme, "version": "v1"}), 5, 8)
    assert isinstance(head, MarginHead)
    x, labels = batch()
    cosine = F.normalize(x, dim=1) @ F.normalize(head.weight, dim=1).T
    theta = torch.acos(cosine.clamp(-1 + 1e-5, 1 - 1e-5))
    value = torch.where(F.one_hot(labels, 5).bool(), torch.cos((1.4 * theta).clamp(max=math.pi)), cosine)
    norms = x.norm(dim=1)
    magnitude = 60.0 if scheme == "HFN" else norms[:, None]
    expected = factor * F.cross_entropy(magnitude * value, labels, reduction="none")
    if scheme == "SFN":
        expected = expected + 0.01 * (norms - 60).abs()
    assert torch.allclose(head(x, labels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("version", ["v0", "v1", "v2"])
def test_sphereface_r_without_feature_normalization_raises_m_at_milestones(version: str) -> None:
    """NFN: m = 1 + Δm · (milestones passed), here 1, 1.25, 1.5 and 1.75."""
    options: dict[str, float | str] = {"version": version, "scheme": "NFN", "m": 1.75}
    head = heads.build(
        HeadConfig(name="sphereface_r", warmup=0.5, options={**options, "milestones": "0.2 0.4 1"}), 5, 8
    )
    x, labels = batch()
    for strength, m in (
        (0.0, 1.0),
        (0.19, 1.0),
        (0.2, 1.25),
        (0.39, 1.25),
        (0.4, 1.5),
        (0.99, 1.5),
        (1.0, 1.75),
    ):
        constant = heads.build(HeadConfig(name="sphereface_r", options={**options, "m": m}), 5, 8)
        constant.load_state_dict(head.state_dict())
        assert torch.allclose(head(x, labels, strength), constant(x, labels), rtol=1e-5)
    plain = x.norm(dim=1)[:, None] * (
        F.normalize(x, dim=1) @ F.normalize(head.get_parameter("weight"), dim=1).T
    )
    expected = 50 * F.cross_entropy(plain, labels, reduction="none")
    assert torch.allclose(head(x, labels, 0.0), expected, rtol=1e-3, atol=1e-3)


def test_adaface_tracks_the_lengths_while_training_only() -> None:
    head = heads.build(HeadConfig(name="adaface"), 5, 8)
    assert isinstance(head, AdaFaceHead)
    x, labels = batch()
    norms = x.norm(dim=1)
    head(x, labels)
    assert head.norm_mean.item() == pytest.approx(0.99 * 20 + 0.01 * norms.mean().item(), rel=1e-5)
    assert head.norm_std.item() == pytest.approx(0.99 * 100 + 0.01 * norms.std().item(), rel=1e-5)
    before = head.norm_mean.item()
    head.eval()
    head(x, labels)
    assert head.norm_mean.item() == before


@pytest.mark.parametrize(("variant", "m"), [("C", 0.4), ("C", 0.5), ("A", 0.5), ("M", 1.7), ("M", 2.5)])
@pytest.mark.parametrize(("classes", "alpha", "r"), [(100, 0.7, 40.0), (5000, 0.8, 64.0)])
def test_sphereface2_bias_starts_where_its_gradient_vanishes(
    variant: Any, m: float, classes: int, alpha: float, r: float
) -> None:
    head = SphereFace2Head(classes, 4, variant=variant, alpha=alpha, r=r, m=m)
    assert head.bias.item() == pytest.approx(initial_bias(classes, alpha, r, m, 3.0, variant))
    losses = head.binary_losses(torch.zeros(2, classes), torch.tensor([0, 1]), 1.0)
    (gradient,) = torch.autograd.grad(losses.sum(), head.bias)
    assert abs(gradient.item()) < 1e-4 * alpha * 2


@pytest.mark.parametrize("variant", ["C", "A", "M"])
def test_sphereface2_against_numpy(variant: Any) -> None:
    torch.manual_seed(0)
    head = SphereFace2Head(5, 8, variant=variant, loss_weight=10.0)
    x, labels = batch()
    w = F.normalize(head.weight, dim=1).detach().numpy()
    cosine = F.normalize(x, dim=1).numpy() @ w.T

    def g(c: float) -> float:
        return float(2 * ((c + 1) / 2) ** 3 - 1)

    def own(c: float) -> float:
        theta = math.acos(c)
        moved = {"C": theta, "A": min(theta + 0.5, math.pi), "M": min(1.7 * theta, math.pi)}[variant]
        return g(math.cos(moved)) - (0.4 if variant == "C" else 0)

    bias = head.bias.item()
    expected = np.zeros(12)
    for i, y in enumerate(labels.tolist()):
        for j in range(5):
            if j == y:
                expected[i] += 0.7 * np.log1p(np.exp(-(40 * own(cosine[i, j]) + bias)))
            else:
                other = g(cosine[i, j]) + (0.4 if variant == "C" else 0)
                expected[i] += 0.3 * np.log1p(np.exp(40 * other + bias))
    assert head(x, labels).detach().numpy() == pytest.approx(expected * 10 / 40, rel=1e-3, abs=1e-5)
    assert similarity_adjustment(torch.tensor([-1.0, 1.0]), 3.0).tolist() == [-1.0, 1.0]


def test_energy_of_an_orthogonal_basis() -> None:
    w = torch.eye(4) * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]
    labels = torch.tensor([0, 1, 1])
    assert hyperspherical_energy(w, labels, "euclid").item() == pytest.approx(0.5, rel=1e-5)
    assert hyperspherical_energy(w, labels, "angular").item() == pytest.approx((2 / math.pi) ** 2, rel=1e-4)
    assert hyperspherical_energy(w, labels, "euclid", power=0).item() == pytest.approx(-math.log(2) / 2)
    assert class_angles(w) == pytest.approx((math.pi / 2, math.pi / 2))
    lying = F.normalize(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    assert class_angles(lying, most=5) == class_angles(lying[::2]) != class_angles(lying)


def test_energy_against_loops() -> None:
    w = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    labels = [0, 4, 4, 2]
    unit = (w / w.norm(dim=1, keepdim=True)).double().numpy()
    others = [(y, j) for y in labels for j in range(6) if j != y]
    chords = [np.linalg.norm(unit[y] - unit[j]) ** -2 for y, j in others]
    found = hyperspherical_energy(w, torch.tensor(labels), "euclid").item()
    assert found == pytest.approx(np.mean(chords), rel=1e-4)
    arcs = [math.acos(unit[i] @ unit[j]) ** -2 for i, j in ((0, 2), (0, 4), (2, 4))]
    found = hyperspherical_energy(w, torch.tensor(labels), "angular").item()
    assert found == pytest.approx(np.mean(arcs), rel=1e-4)


@pytest.mark.parametrize("kind", ["euclid", "angular"])
def test_energy_pushes_near_centers_apart_and_stays_finite(kind: str) -> None:
    w = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1e-3, 0.0], [1.0, 0.0, 0.0]], requires_grad=True)
    energy = hyperspherical_energy(w, torch.tensor([0, 1, 2]), kind)  # type: ignore[arg-type]
    energy.backward()
    assert torch.isfinite(energy)
    assert w.grad is not None
    assert torch.isfinite(w.grad).all()
    spread = torch.nn.Parameter(torch.tensor([[1.0, 0.1], [1.0, -0.1]]))
    optimizer = torch.optim.SGD([spread], lr=1e-3)
    before = class_angles(spread.detach())[1]
    for _ in range(20):
        optimizer.zero_grad()
        hyperspherical_energy(spread, torch.tensor([0, 1]), kind).backward()  # type: ignore[arg-type]
        optimizer.step()
    assert class_angles(spread.detach())[1] > before


def test_sampled_classes_hold_the_batch_and_keep_the_rate() -> None:
    labels = torch.tensor([90, 3, -1, 3, 77])
    torch.manual_seed(0)
    picked = sample_classes(labels, 100, 0.1)
    assert len(picked) == 10
    assert {90, 3, 77} <= set(picked.tolist())
    assert picked.tolist() == sorted(set(picked.tolist()))
    assert len(sample_classes(torch.arange(50), 100, 0.1)) == 50


def test_a_sampled_head_over_all_present_classes_equals_the_full_one() -> None:
    full = heads.build(HeadConfig(name="cosface"), 6, 8)
    sampled = heads.build(HeadConfig(name="cosface", options={"sample_rate": 0.99}), 6, 8)
    sampled.load_state_dict(full.state_dict())
    x, _ = batch(classes=6)
    labels = torch.arange(12) % 6
    assert torch.allclose(full(x, labels), sampled(x, labels), atol=1e-5)


def test_wrong_names_and_options_are_explained() -> None:
    with pytest.raises(TrainingError, match="choose from a_softmax"):
        heads.build(HeadConfig(name="spherical"), 5, 8)
    with pytest.raises(TrainingError, match="no option margin"):
        heads.build(HeadConfig(name="cosface", options={"margin": 0.3}), 5, 8)
    with pytest.raises(TrainingError, match="NFN, HFN, SFN"):
        heads.build(HeadConfig(name="sphereface_r", options={"scheme": "XFN"}), 5, 8)
    for wrong in ("0.4 0.2", "0 1", "2", "soon"):
        with pytest.raises(TrainingError, match="milestones"):
            heads.build(HeadConfig(name="sphereface_r", warmup=1, options={"milestones": wrong}), 5, 8)
    with pytest.raises(TrainingError, match="which is 0"):
        heads.build(HeadConfig(name="sphereface_r", options={"milestones": "0.5 1"}), 5, 8)
    with pytest.raises(TrainingError, match="options of cosface"):
        heads.build(HeadConfig(name="cosface", options={"m": "wide"}), 5, 8)
