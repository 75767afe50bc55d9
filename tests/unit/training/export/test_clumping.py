"""How much the matches of one stranger come together."""

import numpy as np
from numpy.typing import NDArray
from sphereid_training.export.calibration import clumping


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_scattered_faces_match_singly_and_common_looks_together() -> None:
    rng = np.random.default_rng(0)
    faces = rng.standard_normal((1500, 64))
    scattered = unit(faces)
    looks = faces.copy()
    looks[:300] += 2 * np.repeat(rng.standard_normal((10, 64)), 30, axis=0)  # ten looks of thirty people
    everyone = np.arange(1500)
    assert clumping(scattered, everyone) < 0.001
    assert clumping(unit(looks), everyone) > 0.003


def test_more_photographs_of_a_person_change_nothing() -> None:
    faces = unit(np.random.default_rng(1).standard_normal((400, 16)))
    once = clumping(faces, np.arange(400))
    assert clumping(np.repeat(faces, 3, axis=0), np.repeat(np.arange(400), 3)) == once
