"""The picture of digits on the circle and sphere."""

from pathlib import Path

import pytest
from sphereid_training.visualize import PANELS, draw, train_panel


@pytest.mark.parametrize("dim", [2, 3])
def test_panels_learn_and_are_drawn(dim: int, tmp_path: Path) -> None:
    panels = [train_panel(name, PANELS[name], dim, steps=40) for name in ("softmax", "A-Softmax m=4")]
    assert all(panel.features.shape == (360, dim) for panel in panels)
    assert panels[1].accuracy > 0.3
    draw(panels, tmp_path / "deep" / "p.png")
    assert (tmp_path / "deep" / "p.png").stat().st_size > 10_000


def test_all_heads_of_the_picture_are_there() -> None:
    assert [name for name in PANELS if name.startswith("A-Softmax")] == [
        f"A-Softmax m={m}" for m in (1, 2, 3, 4)
    ]
    assert {"softmax", "SphereFace-R v2"} <= PANELS.keys()
