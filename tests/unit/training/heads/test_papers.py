"""Every head as a recipe gets it without options, against its paper's formula and defaults in NumPy; and the
table of the documents, which names the tests."""

import ast
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sphereid_training import heads
from sphereid_training.config import HeadConfig
from sphereid_training.heads.margin import Margin, MultiplicativeAngle, Plain, SphereFaceR, released_logits

Array = NDArray[np.float64]
BATCH, CLASSES, SIZE = 24, 7, 6


def psi(theta: float, m: float) -> float:
    k = math.floor(m * theta / math.pi)
    return float((-1) ** k * math.cos(m * theta) - 2 * k)


def cross_entropy(logits: Array, labels: NDArray[np.int64]) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    made: Array = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return made


def with_target(change: Callable[[float, float], float], scale: float | None) -> Callable[..., Array]:
    """Cross-entropy of s·cosθ (s None: ‖x‖) with change(θ, ‖x‖) for the cosine of the own class."""

    def losses(theta: Array, lengths: Array, labels: NDArray[np.int64]) -> Array:
        value = np.cos(theta)
        for row, own in enumerate(labels):
            value[row, own] = change(theta[row, own], lengths[row])
        return cross_entropy(value * (lengths[:, None] if scale is None else scale), labels)

    return losses


def annealed(theta: float, lam: float, m: int) -> float:
    return (lam * math.cos(theta) + psi(theta, m)) / (1 + lam)


def sphereface_r(theta: Array, lengths: Array, labels: NDArray[np.int64]) -> Array:
    own = np.eye(CLASSES, dtype=bool)[labels]
    return 50 / 60 * cross_entropy(60 * np.cos(np.where(own, theta, theta / 1.4)), labels)


def adaface(theta: float, length: float) -> float:
    # A head in evaluation keeps the mean and deviation that it starts with.
    z = min(max(0.333 * (length - 20) / (100 + 1e-3), -1), 1)
    return math.cos(min(max(theta - 0.4 * z, 0), math.pi)) - (0.4 * z + 0.4)


def magface(theta: Array, lengths: Array, labels: NDArray[np.int64]) -> Array:
    a = np.clip(lengths, 10, 110)
    m = 0.45 + (0.8 - 0.45) * (a - 10) / (110 - 10)
    rows = np.arange(len(labels))
    value = np.cos(theta)
    value[rows, labels] = np.cos(np.minimum(theta[rows, labels] + m, math.pi))
    made: Array = cross_entropy(64 * value, labels) + 20 * (1 / a + a / 110**2)
    return made


# λ of the first step, and SphereFace2's and L-Softmax's own tests are in test_heads.py.
PAPERS: dict[str, tuple[dict[str, Any], Callable[..., Array]]] = {
    "normalized_softmax": ({}, with_target(lambda theta, _: math.cos(theta), 30)),
    "a_softmax": ({}, with_target(lambda theta, _: annealed(theta, 1000 / 1.12, 4), None)),
    "sphereface_r": ({}, sphereface_r),
    "sphereface_r v0": (
        {"version": "v0", "m": 1.5, "s": 30.0, "lw": 30.0},
        with_target(lambda theta, _: psi(theta, 1.5), 30),
    ),
    "sphereface_r v1": (
        {"version": "v1", "m": 1.7, "s": 32.0, "lw": 32.0},
        with_target(lambda theta, _: math.cos(min(1.7 * theta, math.pi)), 32),
    ),
    "cosface": ({}, with_target(lambda theta, _: math.cos(theta) - 0.35, 64)),
    "arcface": ({}, with_target(lambda theta, _: math.cos(min(theta + 0.5, math.pi)), 64)),
    "adaface": ({}, with_target(adaface, 64)),
    "magface": ({}, magface),
}


def points() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(BATCH, SIZE, generator=generator) * torch.linspace(1, 60, BATCH)[:, None]
    return x, torch.randint(0, CLASSES, (BATCH,), generator=generator)


@pytest.mark.parametrize("name", PAPERS)
def test_a_head_without_options_is_its_papers(name: str) -> None:
    torch.manual_seed(1)
    options, expected = PAPERS[name]
    head = heads.build(HeadConfig(name=name.split()[0], options=options), CLASSES, SIZE)
    if name != "a_softmax":  # which counts its steps
        head.eval()
    x, labels = points()
    made = head(x, labels).detach().numpy()
    flat, weight = x.double().numpy(), head.get_parameter("weight").detach().double().numpy()
    lengths = np.linalg.norm(flat, axis=1)
    cosine = flat @ weight.T / lengths[:, None] / np.linalg.norm(weight, axis=1)
    assert made == pytest.approx(expected(np.arccos(cosine), lengths, labels.numpy()), rel=2e-4, abs=2e-4)


def test_softmax_is_cross_entropy_of_products_and_a_bias() -> None:
    torch.manual_seed(1)
    head = heads.build(HeadConfig(name="softmax"), CLASSES, SIZE)
    with torch.no_grad():
        head.get_parameter("bias").copy_(torch.linspace(-1, 1, CLASSES))
    x, labels = points()
    weight, bias = (head.get_parameter(name).detach().numpy() for name in ("weight", "bias"))
    logits = x.double().numpy() @ weight.T.astype(np.float64) + bias
    assert head(x, labels).detach().numpy() == pytest.approx(cross_entropy(logits, labels.numpy()), rel=1e-4)


@pytest.mark.parametrize("name", heads.names())
def test_autocast_does_not_round_a_head(name: str) -> None:
    torch.manual_seed(1)
    head = heads.build(HeadConfig(name=name), CLASSES, SIZE).eval()
    x, labels = points()
    plain = head(x, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(x, labels), plain)


@pytest.mark.parametrize(
    "margin",
    [Plain(), *(MultiplicativeAngle(m) for m in (2, 3, 4)), SphereFaceR("v0", 1.5), SphereFaceR("v1", 1.5)],
    ids=repr,
)
def test_released_gradients_are_finite_at_both_poles(margin: Margin) -> None:
    w = torch.eye(3)[:2].requires_grad_(True)
    x = torch.tensor([[2.0, 0, 0], [-2.0, 0, 0], [0, 1e-7, 0]], requires_grad=True)
    logits = released_logits(margin, x, w, torch.tensor([0, 0, 1]), lam=5.0)
    logits.backward(torch.arange(1.0, 7).reshape(3, 2))
    assert torch.isfinite(logits).all()
    for leaf in (x, w):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_the_table_of_heads_names_every_head_and_tests_that_are_there(repo_root: Path) -> None:
    table = (repo_root / "docs/training.md").read_text().split("## Heads")[1]
    assert set(heads.names()) == set(re.findall(r"^\| `([a-z0-9_]+)`", table, re.M))
    folder = Path(__file__).parent
    file = ""
    found = set()
    for module, name in re.findall(r"`(?:(test_\w+\.py)(?:::)?)?(test_\w+)?`", table):
        file = module or file
        if name:
            tree = ast.parse((folder / file).read_text())
            assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            found.add(name)
    assert len(found) > 15
