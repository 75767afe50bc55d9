"""The pipeline on a public-domain portrait: the stored answer, and the same path through another library."""

import json
from typing import Any

import numpy as np
import pytest
from skimage.transform import SimilarityTransform, warp
from sphereid.faces.align import TEMPLATES, align

from tests.golden.make_pipeline import GOLDEN, detect, measure


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return dict(json.loads(GOLDEN.read_text()))


@pytest.fixture(scope="module")
def measured(portrait: np.ndarray, golden: dict[str, Any]) -> dict[str, Any]:
    return measure(portrait, golden)


# Tolerances leave room for other builds of the kernels, not for another algorithm.
@pytest.mark.parametrize(
    ("what", "within"), [("quality", 0.01), ("crop_rows", 0.5), ("crop_columns", 0.5), ("embedding", 0.01)]
)
def test_stays_as_it_was(measured: dict[str, Any], golden: dict[str, Any], what: str, within: float) -> None:
    np.testing.assert_allclose(measured[what], golden[what], atol=within)


def test_reasons_stay_as_they_were(measured: dict[str, Any], golden: dict[str, Any]) -> None:
    assert measured["reasons"] == golden["reasons"] == []


def test_the_face_is_where_it_was(portrait: np.ndarray, golden: dict[str, Any]) -> None:
    """Roughly: the detector has golden tests of its own."""
    found = detect(portrait)
    np.testing.assert_allclose(found["box"], golden["box"], atol=5)
    np.testing.assert_allclose(found["landmarks"], golden["landmarks"], atol=2.5)
    assert found["detection_score"] > 0.99


@pytest.mark.parametrize("name", ["sphereface-112x96", "arcface-112x112", "canvas-128x128"])
def test_crop_is_that_of_another_library(golden: dict[str, Any], portrait: np.ndarray, name: str) -> None:
    """Solver and warp of scikit-image, in floating point."""
    template, landmarks = TEMPLATES[name], np.array(golden["landmarks"])
    transform = SimilarityTransform.from_estimate(landmarks, template.array.astype(np.float64))
    expected = warp(
        portrait,
        transform.inverse,
        output_shape=(template.height, template.width),
        order=1,
        preserve_range=True,
    )
    ours = align(portrait, landmarks[None].astype(np.float32), template)[0]
    difference = np.abs(ours - expected)
    assert difference.mean() < 0.6
    assert np.percentile(difference, 99.5) < 6
