"""What the pipeline costs, in counts and ratios, never in seconds: a guard against doing more than needed.

`make bench` measures the times; this holds on any machine, however busy.
"""

from collections import defaultdict
from collections.abc import Callable
from time import thread_time
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from sphereid.faces.detect import DetectorConfig, MtcnnDetector
from sphereid.faces.detect.mtcnn import cascade
from sphereid.faces.detect.mtcnn.suppression import nms
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.pipeline import FacePipeline
from sphereid.inference.batcher import BatchReport, MicroBatcher

from tests.toy import write_toy_model

Image = NDArray[np.uint8]
SIDE = 1200


@pytest.fixture(scope="module")
def detector() -> MtcnnDetector:
    return MtcnnDetector()


def crowd(portrait: Image, faces: int) -> Image:
    """A picture of SIDE×SIDE with so many faces, each on 300×300 pixels, before a plain wall."""
    canvas = np.full((SIDE, SIDE, 3), 127, np.uint8)
    across = SIDE // 300
    for i in range(faces):
        y, x = i // across * 300, i % across * 300
        canvas[y : y + 300, x : x + 300] = portrait[:300, 70:370]
    return canvas


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[tuple[int, ...]]]:
    """The shapes that each network was run on, by the side of its input: 24 for R-net, 48 for O-net, 0 for
    P-net."""
    seen: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    infer = cascade._infer

    def counted(session: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        side = session.get_inputs()[0].shape[2]
        seen[side if isinstance(side, int) else 0].append(pixels.shape)
        return infer(session, pixels)

    monkeypatch.setattr(cascade, "_infer", counted)
    return seen


def pixels(shapes: list[tuple[int, ...]]) -> int:
    return sum(int(np.prod(shape)) for shape in shapes)


def test_a_portrait_costs_one_run_a_level_and_two_more(
    detector: MtcnnDetector, portrait: Image, runs: dict[int, list[tuple[int, ...]]]
) -> None:
    image = cv2.resize(portrait, (250, 250), interpolation=cv2.INTER_AREA)
    assert len(detector.detect(np.asarray(image, np.uint8))) == 1
    assert len(runs[0]) == 6  # 250 × 12/32 = 93 pixels, then × 0.709 while at least 12 remain
    assert len(runs[24]) == len(runs[48]) == 1
    assert runs[24][0][0] <= 60  # candidates
    assert runs[48][0][0] <= 15


def test_a_second_thread_shares_the_crops_and_costs_no_more_of_them(
    detector: MtcnnDetector, portrait: Image, runs: dict[int, list[tuple[int, ...]]]
) -> None:
    """Each stage of crops becomes a run a thread, in halves; the levels are as many as before."""
    detector.detect(portrait)
    alone = {side: list(shapes) for side, shapes in runs.items()}
    runs.clear()
    MtcnnDetector(DetectorConfig(threads=2)).detect(portrait)
    assert sorted(runs[0]) == sorted(alone[0])
    for side in (24, 48):
        ((crops, *_),) = alone[side]
        assert crops > 1
        assert sorted(shape[0] for shape in runs[side]) == [crops // 2, -(-crops // 2)]


def test_a_picture_without_candidates_costs_no_further_stage(
    detector: MtcnnDetector, runs: dict[int, list[tuple[int, ...]]]
) -> None:
    assert detector.detect(np.full((250, 250, 3), 127, np.uint8)) == []
    assert runs[0]
    assert not runs[24]
    assert not runs[48]


def test_more_faces_cost_no_more_than_in_proportion(
    detector: MtcnnDetector, portrait: Image, runs: dict[int, list[tuple[int, ...]]]
) -> None:
    crops, levels = {}, {}
    for faces in (1, 16):
        runs.clear()
        assert len(detector.detect(crowd(portrait, faces))) == faces
        crops[faces] = {side: sum(shape[0] for shape in runs[side]) for side in (24, 48)}
        levels[faces] = pixels(runs[0])
    assert levels[16] == levels[1]  # the pyramid does not care who stands there
    for side in (24, 48):  # a quarter more for what looks like a face between neighbors
        assert crops[16][side] <= 1.25 * 16 * crops[1][side]
    assert len(runs[24]) <= -(-crops[16][24] // 128)
    assert len(runs[48]) <= -(-crops[16][48] // 32)


def test_a_larger_photograph_is_not_searched_more_finely(
    detector: MtcnnDetector, portrait: Image, runs: dict[int, list[tuple[int, ...]]]
) -> None:
    """The smallest face sought grows with it, so 16 times the pixels cost the networks about as much."""
    work = {}
    for side in (1024, 4096):
        runs.clear()
        detector.detect(np.asarray(cv2.resize(portrait, (side, side)), np.uint8))
        work[side] = pixels(runs[0])
    assert work[4096] <= 1.3 * work[1024]


def test_faces_of_one_picture_are_embedded_together(portrait: Image, tmp_path: Any) -> None:
    embedder = OnnxEmbedder.load(write_toy_model(tmp_path))
    reports: list[BatchReport] = []
    with MicroBatcher(embedder, max_batch=32, max_wait=0, on_batch=reports.append) as batcher:
        found = FacePipeline(MtcnnDetector(), batcher).analyze(crowd(portrait, 16))
    assert len(found.faces) == 16
    assert [report.crops for report in reports] == [16]


def fastest(work: Callable[[], object], repeats: int = 5) -> float:
    """Processor time of this thread, the least of a few, so that company on the machine matters little."""
    work()
    taken = []
    for _ in range(repeats):
        began = thread_time()
        work()
        taken.append(thread_time() - began)
    return min(taken)


def over(unit: Callable[[], object], work: Callable[[], object], benchmark: BenchmarkFixture) -> float:
    """How many times as long `work` takes as `unit`; pytest-benchmark's report has it as `ratio`.

    pytest-xdist switches pytest-benchmark off; the ratio is held all the same.
    """
    benchmark.pedantic(work, rounds=5, warmup_rounds=1)
    ratio: float = (fastest(work) if benchmark.disabled else benchmark.stats.stats.min) / fastest(unit)
    benchmark.extra_info["ratio"] = round(ratio, 2)
    return ratio


@pytest.mark.benchmark(timer=thread_time)
def test_time_grows_less_than_the_number_of_faces(
    detector: MtcnnDetector, portrait: Image, benchmark: BenchmarkFixture
) -> None:
    one, sixteen = crowd(portrait, 1), crowd(portrait, 16)
    assert over(lambda: detector.detect(one), lambda: detector.detect(sixteen), benchmark) < 16


@pytest.mark.benchmark(timer=thread_time)
def test_time_grows_less_than_the_number_of_pixels(
    detector: MtcnnDetector, portrait: Image, benchmark: BenchmarkFixture
) -> None:
    small, large = (np.asarray(cv2.resize(portrait, (side, side)), np.uint8) for side in (1024, 4096))
    assert over(lambda: detector.detect(small), lambda: detector.detect(large), benchmark) < 16


@pytest.mark.benchmark(timer=thread_time)
def test_time_grows_less_than_the_number_of_crops(tmp_path: Any, benchmark: BenchmarkFixture) -> None:
    embedder = OnnxEmbedder.load(write_toy_model(tmp_path), threads=1)
    height, width = embedder.manifest.input[2:]
    crops = np.random.default_rng(0).integers(0, 256, (32, height, width, 3), np.uint8)
    assert over(lambda: embedder.embed(crops[:1]), lambda: embedder.embed(crops), benchmark) < 1.5 * 32


@pytest.mark.benchmark(timer=thread_time)
def test_boxes_are_suppressed_in_less_than_square_time(benchmark: BenchmarkFixture) -> None:
    """The first stage's rule, on boxes as thinly spread as candidates are in a large photograph."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 4000, (2000, 2)).astype(np.float32)
    boxes, scores = np.concatenate([corner, corner + 40], axis=1), rng.random(2000, np.float32)
    assert over(lambda: nms(boxes[:200], scores[:200], 0.7), lambda: nms(boxes, scores, 0.7), benchmark) < 100
