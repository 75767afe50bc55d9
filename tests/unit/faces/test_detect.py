"""The detector: what it finds, what it refuses, and what it costs."""

import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sphereid.faces.detect import DetectorConfig, MtcnnDetector
from sphereid.faces.detect.mtcnn import cascade
from sphereid.faces.ports import FaceDetector
from sphereid.faces.types import Face

Image = NDArray[np.uint8]

FACE = (179, 61, 268, 174)
"""Where the portrait's face lies: left, top, right, bottom in pixels."""


@pytest.fixture(scope="module")
def detector() -> MtcnnDetector:
    return MtcnnDetector()


def iou(a: NDArray[np.float32], b: tuple[float, ...]) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inter = float(np.prod(np.maximum(sides, 0)))
    area_a, area_b = np.prod(a[2:] - a[:2]), (b[2] - b[0]) * (b[3] - b[1])
    return inter / float(area_a + area_b - inter)


def test_satisfies_the_port(detector: MtcnnDetector) -> None:
    port: FaceDetector = detector
    assert port.detect(np.zeros((40, 40, 3), np.uint8)) == []


def test_finds_the_portrait(detector: MtcnnDetector, portrait: Image) -> None:
    (face,) = detector.detect(portrait)
    assert iou(face.box_xyxy, FACE) > 0.85
    assert 0.99 < face.score <= 1
    assert face.box_xyxy.dtype == face.landmarks.dtype == np.float32
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_mirrored_portrait_has_mirrored_landmarks(detector: MtcnnDetector, portrait: Image) -> None:
    (face,) = detector.detect(portrait)
    (mirrored,) = detector.detect(portrait[:, ::-1])
    expected = face.landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (portrait.shape[1] - 1, 0)
    assert np.linalg.norm(mirrored.landmarks - expected, axis=1).mean() < 3


def test_largest_first(detector: MtcnnDetector, portrait: Image) -> None:
    face = portrait[0:240, 100:340]
    small = cv2.resize(face, (120, 120), interpolation=cv2.INTER_AREA)
    canvas = np.full((260, 420, 3), 110, np.uint8)
    canvas[10:130, 10:130] = small
    canvas[10:250, 160:400] = face
    found = detector.detect(canvas)
    assert len(found) == 2
    assert found[0].box_xyxy[0] > 160
    assert np.prod(found[0].box_xyxy[2:] - found[0].box_xyxy[:2]) > 2 * np.prod(
        found[1].box_xyxy[2:] - found[1].box_xyxy[:2]
    )


def test_min_face_leaves_small_faces_out(detector: MtcnnDetector, portrait: Image) -> None:
    small = cv2.resize(portrait, (160, 160), interpolation=cv2.INTER_AREA)  # the face: about 28×35 pixels
    assert len(detector.detect(small, min_face=20)) == 1
    assert detector.detect(small, min_face=120) == []
    assert detector.detect(portrait, min_face=5000) == []


def test_min_score_bounds_the_scores(detector: MtcnnDetector, portrait: Image) -> None:
    turned = cv2.warpAffine(
        portrait, cv2.getRotationMatrix2D((224, 118), 55, 1), (512, 512), borderMode=cv2.BORDER_REPLICATE
    )
    lenient = detector.detect(turned, min_score=0.0)
    strict = detector.detect(turned, min_score=0.95)
    assert len(lenient) >= len(strict)
    assert all(face.score >= 0.95 for face in strict)
    assert len(detector.detect(portrait, min_score=0.5)) >= 1


@pytest.mark.parametrize("inset", [0.0, 0.08])
def test_close_up_fills_the_frame(portrait: Image, inset: float) -> None:
    """A face cut at its box, or inside it, is found with its landmarks where the whole picture has them."""
    (whole,) = MtcnnDetector().detect(portrait)
    left, top, right, bottom = whole.box_xyxy
    dx, dy = inset * (right - left), inset * (bottom - top)
    x1, y1, x2, y2 = (int(v) for v in (left + dx, top + dy, right - dx, bottom - dy))
    (face,) = MtcnnDetector().detect(portrait[y1:y2, x1:x2])
    error = np.linalg.norm(face.landmarks + np.array([x1, y1]) - whole.landmarks, axis=1).mean()
    assert error < 0.06 * (y2 - y1)


def test_close_up_of_many_pixels(portrait: Image) -> None:
    left, top, right, bottom = FACE
    close = cv2.resize(portrait[top + 5 : bottom - 5, left + 5 : right - 5], None, fx=20, fy=20)
    (face,) = MtcnnDetector().detect(close)
    assert min(face.box_xyxy[2:] - face.box_xyxy[:2]) > 0.7 * min(close.shape[:2])


def test_large_photographs_are_reduced_without_moving_the_face(
    detector: MtcnnDetector, portrait: Image
) -> None:
    large = cv2.resize(portrait, None, fx=6.01, fy=6.01, interpolation=cv2.INTER_CUBIC)
    (face,) = detector.detect(large, min_face=300)
    assert iou(face.box_xyxy, tuple(v * 6.01 for v in FACE)) > 0.85
    (small,) = detector.detect(portrait)
    assert np.abs(face.landmarks / 6.01 - small.landmarks).max() < 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (11, 11), (11, 400), (2, 3)])
def test_under_twelve_pixels_there_is_no_face(detector: MtcnnDetector, shape: tuple[int, int]) -> None:
    assert detector.detect(np.full((*shape, 3), 128, np.uint8)) == []


@pytest.mark.parametrize("shape", [(12, 12), (13, 5000), (3000, 12), (33, 32)])
def test_odd_shapes_are_no_trouble(detector: MtcnnDetector, shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for min_face in (None, 12, 100):
        assert isinstance(detector.detect(noise, min_face=min_face), list)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 160),
    width=st.integers(1, 160),
    min_face=st.one_of(st.none(), st.integers(-5, 400)),
    seed=st.integers(0, 5),
)
def test_any_size_answers(height: int, width: int, min_face: int | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (7, 9, 3), np.uint8), (width, height))
    for face in _SHARED.detect(image.reshape(height, width, 3), min_face=min_face, min_score=0.1):
        assert 0.1 <= face.score <= 1
        assert np.isfinite(face.box_xyxy).all()
        assert face.landmarks.shape == (5, 2)


_SHARED = MtcnnDetector(DetectorConfig(thresholds=(0.1, 0.1, 0.1)))


def test_views_need_no_copy_by_the_caller(detector: MtcnnDetector, portrait: Image) -> None:
    (plain,) = detector.detect(portrait)
    wide = np.zeros((512, 1024, 3), np.uint8)
    wide[:, ::2] = portrait
    (strided,) = detector.detect(wide[:, ::2])
    np.testing.assert_array_equal(plain.box_xyxy, strided.box_xyxy)


@pytest.mark.parametrize(
    "image",
    [np.zeros((50, 50), np.uint8), np.zeros((50, 50, 4), np.uint8), np.zeros((50, 50, 3), np.float32)],
)
def test_other_arrays_are_refused(detector: MtcnnDetector, image: Image) -> None:
    with pytest.raises(ValueError, match="uint8 RGB"):
        detector.detect(image)


@pytest.mark.parametrize(
    "wrong",
    [
        {"thresholds": (0.6, 0.7, 1.0)},
        {"factor": 1.0},
        {"factor": 0.0},
        {"min_face": 0},
        {"min_face_ratio": -0.1},
        {"threads": 0},
        {"max_candidates": 0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        DetectorConfig(**wrong)  # type: ignore[arg-type]


def test_threads_of_one_call_change_nothing(detector: MtcnnDetector, portrait: Image) -> None:
    """Tiles, levels and crops are shared out among threads; the answer is put together in the same order."""
    crowd = np.tile(portrait[:300, :300], (2, 3, 1))
    for image in (portrait, crowd, np.full((90, 400, 3), 127, np.uint8)):
        alone = detector.detect(image)
        together = MtcnnDetector(DetectorConfig(threads=3)).detect(image)
        assert len(alone) == len(together)
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(one.box_xyxy, other.box_xyxy, atol=0.01)
            np.testing.assert_allclose(one.landmarks, other.landmarks, atol=0.01)
            assert one.score == pytest.approx(other.score, abs=1e-4)


@pytest.mark.parametrize("threads", [1, 3])
def test_callers_share_one_detector(detector: MtcnnDetector, portrait: Image, threads: int) -> None:
    """Also where they share its helping threads."""
    shared = MtcnnDetector(DetectorConfig(threads=threads))
    images = [
        cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA) for side in range(180, 300, 10)
    ]
    alone = [detector.detect(image) for image in images]
    gate = threading.Barrier(4)

    def all_images(_: int) -> list[list[Face]]:
        gate.wait()
        return [shared.detect(image) for image in images]

    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(all_images, range(4)):
            for expected, found in zip(alone, together, strict=True):
                assert len(expected) == len(found)
                for one, other in zip(expected, found, strict=True):
                    atol = 0 if threads == 1 else 0.01
                    np.testing.assert_allclose(one.box_xyxy, other.box_xyxy, rtol=0, atol=atol)


def test_a_failure_of_a_helping_thread_reaches_the_caller_and_passes(
    portrait: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = MtcnnDetector(DetectorConfig(threads=2))
    infer, names = cascade._infer, set[str]()

    def run(session: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        names.add(threading.current_thread().name)
        if failing and threading.current_thread() is not threading.main_thread():
            raise MemoryError("no room")
        return infer(session, pixels)

    monkeypatch.setattr(cascade, "_infer", run)
    failing = True
    with pytest.raises(MemoryError, match="no room"):
        detector.detect(portrait)
    failing = False
    names.clear()
    for _ in range(50):  # the thread may still be on its way back when the caller already asks again
        assert len(detector.detect(portrait)) == 1
        if len(names) == 2:
            break
    assert len(names) == 2


def resident() -> int:
    """Bytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_stays_flat_over_many_sizes(detector: MtcnnDetector, portrait: Image) -> None:
    rng = np.random.default_rng(1)

    def look(count: int) -> None:
        for height, width in rng.integers(30, 500, (count, 2)):
            detector.detect(cv2.resize(portrait, (int(width), int(height))))

    look(50)
    before = resident()
    look(70)
    assert resident() - before < 25e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_a_large_photograph_takes_little_memory(portrait: Image) -> None:
    """24 million pixels: with the default smallest face, less memory than the photograph itself (72 MB)."""
    detector = MtcnnDetector()
    photograph = np.full((4000, 6000, 3), 120, np.uint8)
    photograph[1000:3048, 2000:4048] = cv2.resize(portrait, (2048, 2048))
    detector.detect(portrait)
    peak = resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, resident())

    before = resident()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        (face,) = detector.detect(photograph)
    finally:
        done.set()
        watcher.join()
    assert peak - before < 72e6
    assert iou(face.box_xyxy, tuple(v * 4 + o for v, o in zip(FACE, (2000, 1000) * 2, strict=True))) > 0.8
