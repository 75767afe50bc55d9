"""The labels of the demo clips, and how a clip is scored against them."""

import tomllib

import numpy as np
import pytest
from sphereid.video.types import Shown, ShownFrame

from benchmarks.composed import Truth, iou
from benchmarks.labeled import LABELS, box_at
from benchmarks.video import score


def test_boxes_move_evenly_between_key_frames_and_end_with_them() -> None:
    stretches = [[[0, 0, 0, 10, 10], [10, 20, 40, 30, 50]], [[15, 5, 5, 9, 9]]]
    assert box_at(stretches, 0) == (0, 0, 10, 10)
    assert box_at(stretches, 5) == (10, 20, 20, 30)
    assert box_at(stretches, 10) == (20, 40, 30, 50)
    assert box_at(stretches, 15) == (5, 5, 9, 9)
    assert [box_at(stretches, frame) for frame in (11, 14, 16)] == [None] * 3


def test_labels_are_whole_and_nobody_is_in_two_places() -> None:
    clips = tomllib.loads(LABELS.read_text(encoding="utf-8"))
    assert set(clips) == {"short_hamilton_clip", "facenet_pytorch_video"}
    for clip in clips.values():
        for letter, person in clip["people"].items():
            assert len(letter) == 1, "letters, not names"
            assert person["who"]
            frames = [key[0] for stretch in person["boxes"] for key in stretch]
            assert frames == sorted(set(frames))
            for stretch in person["boxes"]:
                assert all(left < right and top < bottom for _, left, top, right, bottom in stretch)
                crossed = [cut for cut in clip["cuts"] if stretch[0][0] < cut <= stretch[-1][0]]
                assert crossed == [], "a stretch goes over a cut"
            if "enroll" in person:
                assert box_at(person["boxes"], person["enroll"]) is not None
        assert sum("enroll" in person for person in clip["people"].values()) == 4


def shown(index: int, *faces: tuple[float, str | None]) -> ShownFrame:
    boxes = [((x, 0.0, x + 10, 10.0), name) for x, name in faces]
    return ShownFrame(index, index / 10, tuple(Shown(box, 1, 1, name, 0.9) for box, name in boxes))


def test_a_score_counts_wrong_names_lost_names_and_switches() -> None:
    truth = [
        Truth("A", True, 0, (0.0, 0.0, 10.0, 10.0)),
        Truth("B", True, 0, (50.0, 0.0, 60.0, 10.0)),
        Truth("S", False, 0, (90.0, 0.0, 100.0, 10.0)),
    ]
    frames = [
        shown(0, (1, "A"), (50, "B"), (90, None)),
        shown(1, (1, "A"), (50, None), (90, "A"), (200, "B")),
        shown(2, (1, "B")),
        shown(3),
    ]
    found = score(frames, [truth, truth, truth, []])
    assert found["named"] == 6  # A, B, A, the stranger, a box on nobody, and A as B
    assert found["identification_precision"] == pytest.approx(3 / 6)
    assert found["identification_recall"] == pytest.approx(3 / 6)
    assert found["switches"] == 3  # B to nobody, the stranger to A, A to B
    assert found["switch_rate"] == pytest.approx(3 / 4)
    assert found["detection_recall"] == pytest.approx(7 / 9, abs=1e-4)


def test_overlap_of_boxes() -> None:
    square = (0.0, 0.0, 10.0, 10.0)
    assert iou(square, square) == 1
    assert iou(square, (5.0, 0.0, 15.0, 10.0)) == pytest.approx(1 / 3)
    assert iou(square, (10.0, 0.0, 20.0, 10.0)) == 0
    assert np.isclose(iou(square, (2.0, 2.0, 4.0, 4.0)), 0.04)
