"""The best face of each track, kept until it is known who was unknown."""

from pathlib import Path

import numpy as np
import pytest
from sphereid.faces.crops import picture
from sphereid.faces.types import Face, Quality
from sphereid.video.inbox import BestFaces
from sphereid.video.types import Sighting

from tests.unit.video.test_tracks import ALICE, BOB

FRAME = np.full((120, 160, 3), 90, np.uint8)


def face(quality: float, *reasons: str) -> Face:
    landmarks = np.array([[40, 40], [70, 40], [55, 55], [43, 70], [67, 70]], np.float32)
    return Face(np.array([30, 20, 80, 90], np.float32), 0.99, landmarks, Quality(quality, reasons))


def seen(part: int, vector: np.ndarray | None, quality: float) -> Sighting:
    return Sighting((30.0, 20.0, 80.0, 90.0), 0.99, quality, part, part, vector)


def test_the_best_embedded_face_of_each_part_survives_an_interruption(tmp_path: Path) -> None:
    best = BestFaces(tmp_path / "faces")
    best.offer(FRAME, [face(0.4), face(0.9, "too_small")], [seen(1, ALICE, 0.4), seen(2, BOB, 0.9)])
    best.offer(FRAME, [face(0.3)], [seen(1, BOB, 0.3)])
    best.offer(FRAME, [face(0.9)], [seen(1, None, 0.9)])
    again = BestFaces(tmp_path / "faces")
    again.offer(FRAME, [face(0.41)], [seen(1, BOB, 0.41)])  # hardly better
    kept = again.of(1)
    assert kept is not None
    assert kept.vector == pytest.approx(ALICE)
    assert (kept.quality, kept.score) == (0.4, 0.99)
    assert picture(kept.crop).startswith(b"\xff\xd8")
    again.offer(FRAME, [face(0.6)], [seen(1, BOB, 0.6)])
    better = again.of(1)
    assert better is not None
    assert better.vector == pytest.approx(BOB)
    assert again.of(2) is None
    again.clear()
    assert list(tmp_path.iterdir()) == []
