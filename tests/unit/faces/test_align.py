"""Alignment against an independent solver and against pixels whose place is known."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear
from skimage.transform import SimilarityTransform
from sphereid.faces.align import TEMPLATES, align, similarity_transforms

TEMPLATE = TEMPLATES["sphereface-112x96"]


def random_landmarks(rng: np.random.Generator, count: int) -> np.ndarray:
    """Faces anywhere, of any size and roll, whose points are off the template by a few percent."""
    angle, scale = rng.uniform(-np.pi, np.pi, count), np.exp(rng.uniform(-2, 3, count))
    turn = (scale * np.exp(1j * angle))[:, None]
    points = TEMPLATE.array.astype(np.float64) @ [1, 1j] + rng.normal(0, 3, (count, 5, 2)) @ [1, 1j]
    moved = points * turn + rng.uniform(-2000, 2000, (count, 1)) * (1 + 0.5j)
    return np.stack([moved.real, moved.imag], axis=-1)


def test_agrees_with_umeyama_of_scikit_image() -> None:
    landmarks = random_landmarks(np.random.default_rng(1), 200)
    ours = similarity_transforms(landmarks, TEMPLATE.array)
    for points, matrix in zip(landmarks, ours, strict=True):
        theirs = SimilarityTransform.from_estimate(points, TEMPLATE.array.astype(np.float64))
        np.testing.assert_allclose(matrix, theirs.params[:2], rtol=1e-7, atol=1e-6)


def test_agrees_with_a_linear_solver() -> None:
    points = random_landmarks(np.random.default_rng(2), 1)[0]
    x, y = points.T
    one, zero = np.ones(5), np.zeros(5)
    design = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    a, b, tx, ty = lsq_linear(design, TEMPLATE.array.T.reshape(-1)).x
    expected = [[a, -b, tx], [b, a, ty]]
    np.testing.assert_allclose(similarity_transforms(points[None], TEMPLATE.array)[0], expected, atol=1e-6)


@given(
    angle=st.floats(-3.14, 3.14),
    scale=st.floats(0.01, 100),
    dx=st.floats(-1e4, 1e4),
    dy=st.floats(-1e4, 1e4),
)
@settings(max_examples=100, deadline=None)
def test_recovers_an_exact_transform(angle: float, scale: float, dx: float, dy: float) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = TEMPLATE.array.astype(np.float64) @ turn.T + [dx, dy]
    matrix = similarity_transforms(landmarks[None], TEMPLATE.array)[0]
    np.testing.assert_allclose(landmarks @ matrix[:, :2].T + matrix[:, 2], TEMPLATE.array, atol=1e-5)


def test_never_mirrors() -> None:
    mirrored = TEMPLATE.array * [-1, 1]
    matrix = similarity_transforms(mirrored[None], TEMPLATE.array)[0]
    assert np.linalg.det(matrix[:, :2]) > 0


def test_templates_nest_in_one_another() -> None:
    sphereface, arcface = TEMPLATES["sphereface-112x96"], TEMPLATES["arcface-112x112"]
    canvas = TEMPLATES["canvas-128x128"]
    np.testing.assert_allclose(sphereface.array[0], [29.2946, 50.6963], atol=1e-4)
    np.testing.assert_allclose(arcface.array - sphereface.array, np.full((5, 2), [8, 0]), atol=1e-4)
    np.testing.assert_allclose(canvas.array - arcface.array, np.full((5, 2), [8, 8]), atol=1e-4)
    np.testing.assert_allclose(TEMPLATES["insightface-112x112"].array[0], [38.2946, 51.6963], atol=1e-4)


def test_crops_of_the_three_templates_hold_the_same_pixels(portrait: np.ndarray) -> None:
    landmarks = np.array([[[205, 102], [247, 104], [225, 129], [202, 139], [245, 142]]], np.float32)
    canvas = align(portrait, landmarks, TEMPLATES["canvas-128x128"])[0]
    arcface = align(portrait, landmarks, TEMPLATES["arcface-112x112"])[0]
    sphereface = align(portrait, landmarks, TEMPLATES["sphereface-112x96"])[0]
    # Shifted destinations round differently in the fixed-point interpolation of OpenCV.
    for part, crop in ((canvas[8:120, 8:120], arcface), (canvas[8:120, 16:112], sphereface)):
        difference = np.abs(part.astype(int) - crop)
        assert difference.mean() < 1
        assert np.percentile(difference, 99) <= 8


def test_landmarks_land_on_the_template() -> None:
    """Five bright dots in a turned and enlarged picture come out where the template wants them."""
    turn = 1.5 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    landmarks = (TEMPLATE.array @ turn.T + [200, 40]).astype(np.float32)
    image = np.zeros((500, 500, 3), np.uint8)
    for x, y in landmarks:
        cv2.circle(image, (round(float(x) * 16), round(float(y) * 16)), 5 * 16, (255, 255, 255), -1, shift=4)
    image = cv2.GaussianBlur(image, (0, 0), 2)
    crop = align(image, landmarks[None], TEMPLATE)[0, :, :, 0].astype(np.float64)
    yy, xx = np.mgrid[: TEMPLATE.height, : TEMPLATE.width]
    for x, y in TEMPLATE.array:
        near = crop * (np.hypot(xx - x, yy - y) < 8)
        centroid = np.array([(xx * near).sum(), (yy * near).sum()]) / near.sum()
        np.testing.assert_allclose(centroid, [x, y], atol=0.15)


def turned_template(scale: float, dx: float, dy: float) -> np.ndarray:
    """(1, 5, 2) landmarks of a face `scale` times as large as its crop, rolled a little."""
    turn = scale * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    return (TEMPLATE.array @ turn.T + [dx, dy]).astype(np.float32)[None]


@pytest.mark.parametrize("scale", [0.4, 1.0, 1.9, 2.0, 2.7, 5.5, 8.0])
@pytest.mark.parametrize("shift", [(300, 40), (0, 0), (-60, -90), (800, 700)])
def test_averaging_moves_nothing(scale: float, shift: tuple[int, int]) -> None:
    """On a smooth picture the crop is what the transform says, at every size and over every edge."""
    yy, xx = np.mgrid[:1000, :1100]
    image = np.stack([xx * 0.2, yy * 0.2, (xx + yy) * 0.1], axis=2).round().astype(np.uint8)
    landmarks = turned_template(scale, *shift)
    crop = align(image, landmarks, TEMPLATE)[0].astype(float)
    matrix = similarity_transforms(landmarks, TEMPLATE.array)[0]
    grid = np.mgrid[: TEMPLATE.height, : TEMPLATE.width][::-1].reshape(2, -1).T
    x, y = ((grid - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T).T.reshape(2, TEMPLATE.height, -1)
    margin = 2 * max(scale, 1)
    inside = (x > margin) & (y > margin) & (x < 1099 - margin) & (y < 999 - margin)
    assert inside.any() or scale < 1
    expected = np.stack([x * 0.2, y * 0.2, (x + y) * 0.1], axis=2)
    np.testing.assert_allclose(crop[inside], expected[inside], atol=1.2)
    outside = (x < -margin) | (y < -margin) | (x > 1099 + margin) | (y > 999 + margin)
    assert not crop[outside].any()


def test_texture_finer_than_the_crop_is_averaged() -> None:
    image = np.random.default_rng(3).choice(np.array([0, 255], np.uint8), (1200, 1200, 1)).repeat(3, axis=2)
    crop = align(image, turned_template(8, 300, 100), TEMPLATE)[0]
    assert crop.std() < 25  # plain bilinear sampling leaves 80
    assert crop.mean() == pytest.approx(127, abs=5)


def test_outside_of_the_image_is_black_and_no_face_gives_no_crop() -> None:
    image = np.full((50, 50, 3), 200, np.uint8)
    assert align(image, np.empty((0, 5, 2), np.float32), TEMPLATE).shape == (0, 112, 96, 3)
    crop = align(image, (TEMPLATE.array + 1000)[None], TEMPLATE)
    assert crop.shape == (1, 112, 96, 3)
    assert crop.dtype == np.uint8
    assert not crop.any()


def test_coinciding_landmarks_give_a_crop_and_no_crash(portrait: np.ndarray) -> None:
    crop = align(portrait, np.full((1, 5, 2), 7, np.float32), TEMPLATE)
    assert crop.shape == (1, 112, 96, 3)


def test_refuses_what_cannot_be_solved() -> None:
    with pytest.raises(ValueError, match="finite"):
        similarity_transforms(np.full((1, 5, 2), np.nan), TEMPLATE.array)
    with pytest.raises(ValueError, match="do not fit"):
        similarity_transforms(np.zeros((1, 4, 2)), TEMPLATE.array)
