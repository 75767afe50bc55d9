"""What the pipeline costs, in counts and ratios, never in seconds: a guard against doing more than needed.

`make bench` measures the times; this holds on any machine, however busy.
"""

from collections import defaultdict
from time import thread_time
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.pipeline.batcher import BatchReport, MicroBatcher
from app.pipeline.detect import DetectorConfig, MtcnnDetector, cascade
from app.pipeline.embed import OnnxEmbedder
from app.pipeline.pipeline import FacePipeline
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


def test_time_grows_less_than_the_number_of_faces(portrait: Image) -> None:
    """Processor time of this thread, the best of a few, so that company on the machine matters little."""
    detector = MtcnnDetector(DetectorConfig(threads=1))
    best = {}
    for faces in (1, 16):
        image = crowd(portrait, faces)
        taken = []
        for _ in range(4):
            began = thread_time()
            detector.detect(image)
            taken.append(thread_time() - began)
        best[faces] = min(taken)
    assert best[16] < 16 * best[1]
