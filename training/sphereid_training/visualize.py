"""The paper's picture: digits embedded in two or three dimensions, drawn on the circle or sphere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from sphereid_training import heads
from sphereid_training.config import HeadConfig
from sphereid_training.errors import TrainingError
from sphereid_training.heads.classifier import MarginHead

PANELS: dict[str, HeadConfig] = {
    "softmax": HeadConfig(name="softmax"),
    "A-Softmax m=1": HeadConfig(name="a_softmax", options={"m": 1}),
    "A-Softmax m=2": HeadConfig(name="a_softmax", options={"m": 2, "gamma": 1.0, "lambda_min": 2}),
    "A-Softmax m=3": HeadConfig(name="a_softmax", options={"m": 3, "gamma": 1.0, "lambda_min": 2}),
    "A-Softmax m=4": HeadConfig(name="a_softmax", options={"m": 4, "gamma": 1.0, "lambda_min": 2}),
    "SphereFace-R v2": HeadConfig(
        name="sphereface_r", grad_mode="detached", options={"version": "v2", "s": 16, "m": 1.4, "lw": 16}
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One head's result on the test digits. features: (N, 2 or 3); accuracy: share named right."""

    title: str
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    accuracy: float


class DigitNet(nn.Module):
    """(B, 1, 8, 8) pixels in [0, 1] to (B, dim): small enough to train in seconds."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.PReLU(32),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.PReLU(64),
            nn.Flatten(),
            nn.Linear(64 * 16, 64),
            nn.PReLU(64),
            nn.Linear(64, dim),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.layers(pixels)
        return features


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scikit-learn's 1,797 digits: training pixels and labels, then every fifth for the test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = torch.tensor(data.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(data.target)
    test = torch.arange(len(labels)) % 5 == 0
    return pixels[~test], labels[~test], pixels[test], labels[test]


def train_panel(title: str, config: HeadConfig, dim: int, *, steps: int = 600, seed: int = 0) -> Panel:
    """Train one small net with one head and embed the test digits."""
    torch.manual_seed(seed)
    pixels, labels, test_pixels, test_labels = digits()
    net, head = DigitNet(dim), heads.build(config, 10, dim)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(0, len(labels), (128,))
        if isinstance(head, MarginHead):
            head.begin_step()
        loss = head(net(pixels[rows]), labels[rows]).mean()
        if not torch.isfinite(loss):
            raise TrainingError(f"{title}: the loss is not a number")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    with torch.no_grad():
        features = net(test_pixels)
        weight: Tensor = head.get_parameter("weight")
        if config.name == "softmax":
            logits = features @ weight.T + head.get_parameter("bias")
        else:
            logits = features @ nn.functional.normalize(weight, dim=1).T
        accuracy = (logits.argmax(dim=1) == test_labels).float().mean().item()
    return Panel(title, features.numpy(), test_labels.numpy(), accuracy)


def draw(panels: list[Panel], path: Path) -> None:
    """Draw features on top, and below them their directions on the circle or sphere."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    solid = panels[0].features.shape[1] == 3
    figure = pyplot.figure(figsize=(3 * len(panels), 6.2))
    for column, panel in enumerate(panels):
        unit = panel.features / np.linalg.norm(panel.features, axis=1, keepdims=True)
        for row, points in enumerate((panel.features, unit)):
            axes: Any = figure.add_subplot(
                2, len(panels), row * len(panels) + column + 1, projection="3d" if solid else None
            )
            axes.scatter(*points.T, c=panel.labels, cmap="tab10", s=5)
            axes.set_xticks([])
            axes.set_yticks([])
            if solid:
                axes.set_zticks([])
            else:
                axes.set_aspect("equal")
            if row == 0:
                axes.set_title(f"{panel.title}\n{100 * panel.accuracy:.1f} %", fontsize=10)
    figure.suptitle("digits: features (top) and their directions (bottom), with test accuracy", fontsize=11)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def visualize(out: Path, *, steps: int, console: Console) -> list[Path]:
    """Train all panels in two and in three dimensions; returns the pictures' paths."""
    written = []
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # nets this small spend more on sharing their work than on doing it
    try:
        for dim in (2, 3):
            panels = []
            for title, config in PANELS.items():
                with console.status(f"{title}, {dim} dimensions"):
                    panels.append(train_panel(title, config, dim, steps=steps))
                console.print(f"{dim}-D {title}: {100 * panels[-1].accuracy:.1f} % of test digits")
            written.append(out / f"digits-{dim}d.png")
            draw(panels, written[-1])
    finally:
        torch.set_num_threads(before)
    return written
