"""Tracks, their parts, and the evidence in them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sphereid.gallery.thresholds.calibration import ImpostorCalibration
from sphereid.video.tracker import FaceTracker
from sphereid.video.tracks import Links, TrackBook, pairs_after
from sphereid.video.types import Sighting

Vector = np.ndarray


def unit(seed: int, near: Vector | None = None, noise: float = 1.0) -> Vector:
    """A random direction in 64 dimensions, or one near another."""
    vector = np.random.default_rng(seed).normal(size=64) / 8
    if near is not None:
        vector = near + noise * vector
    return (vector / np.linalg.norm(vector)).astype(np.float32)


ALICE, BOB = unit(1), unit(2)


def seen(chain: int, vector: Vector | None, quality: float = 0.8, x: float = 0.0) -> Sighting:
    return Sighting((x, 0.0, x + 50, 50.0), 0.99, quality, chain, 0, vector)


def test_the_tracker_follows_boxes_that_move_and_cross() -> None:
    tracker = FaceTracker()
    numbers = []
    for step in range(40):
        time = step / 10
        boxes = np.array(
            [[20 + 8 * step, 100, 80 + 8 * step, 160], [500 - 6 * step, 20, 560 - 6 * step, 80]], np.float32
        )
        order = [0, 1] if step % 2 else [1, 0]
        got = tracker.update(time, boxes[order], [0.99, 0.99])
        numbers.append([got[order.index(0)], got[order.index(1)]])
    assert len({tuple(n) for n in numbers}) == 1
    assert numbers[0][0] != numbers[0][1]


def test_a_lost_track_is_not_revived_by_another_face_later() -> None:
    tracker = FaceTracker()
    box = np.array([[10, 10, 60, 60]], np.float32)
    first = [tracker.update(t / 10, box, [0.9])[0] for t in range(5)]
    for t in range(5, 40):
        assert tracker.update(t / 10, np.empty((0, 4), np.float32), []) == []
    assert len(set(first)) == 1
    assert tracker.update(4.0, box, [0.9])[0] not in first
    later = tracker.update(4.1, box, [0.9])
    assert tracker.update(60.0, box, [0.9]) != later  # also when nothing was asked in between


def test_a_track_of_one_person_is_one_part_with_the_weighted_mean() -> None:
    book = TrackBook()
    vectors = [unit(10 + i, ALICE, 0.4) for i in range(6)]
    qualities = [0.2, 0.9, 0.5, 0.7, 0.9, 0.3]
    for i, (vector, quality) in enumerate(zip(vectors, qualities, strict=True)):
        assert book.add(i / 10, [seen(7, vector, quality)]) == [1]
    part = book.parts[1]
    total = sum(q * v.astype(float) for q, v in zip(qualities, vectors, strict=True))
    assert part.pooled == pytest.approx(total / np.linalg.norm(total), abs=1e-6)
    assert part.best_quality == 0.9
    assert part.best_time == pytest.approx(0.1)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0.05, 1.0)), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_pooled_times_coherence_is_the_mean_of_the_single_cosines(faces: list[tuple[int, float]]) -> None:
    book = TrackBook(Links(turn=-2.0, rejoin=2.0))
    vectors = [unit(seed) for seed, _ in faces]
    for i, (vector, (_, quality)) in enumerate(zip(vectors, faces, strict=True)):
        book.add(i / 10, [seen(1, vector, quality)])
    part = book.parts[1]
    weights = np.array([quality for _, quality in faces])
    mean = float(np.average([v @ BOB for v in vectors], weights=weights))
    assert part.pooled is not None
    assert float(part.pooled @ BOB) * part.coherence == pytest.approx(mean, abs=1e-5)


def test_a_cut_to_somebody_else_at_the_same_place_starts_a_new_part() -> None:
    book = TrackBook()
    parts = [book.add(i / 10, [seen(1, unit(i, ALICE if i < 5 else BOB, 0.3))])[0] for i in range(10)]
    assert parts == [1] * 5 + [2] * 5
    assert float(book.parts[2].pooled @ BOB) > 0.9


def test_a_blurred_face_disturbs_nothing() -> None:
    book = TrackBook()
    for i in range(12):
        vector = unit(99) if i == 6 else unit(i, ALICE, 0.3)
        book.add(i / 10, [seen(1, vector)])
    parts, target = book.merged()
    assert list(parts) == [1]
    assert set(target.values()) == {1}
    assert parts[1].sightings == 12
    assert float(parts[1].pooled @ ALICE) > 0.95


def test_a_face_that_jumped_goes_on_with_its_part() -> None:
    book = TrackBook()
    for i in range(5):
        book.add(i / 10, [seen(1, unit(i, ALICE, 0.3))])
    assert book.add(0.6, [seen(2, unit(50, ALICE, 0.3), x=300)]) == [1]
    assert book.add(0.7, [seen(3, unit(51, BOB, 0.3), x=500)]) == [2]


def test_two_faces_that_swap_their_tracks_swap_them_back() -> None:
    book = TrackBook()
    for i in range(5):
        book.add(i / 10, [seen(1, unit(i, ALICE, 0.3)), seen(2, unit(20 + i, BOB, 0.3), x=90)])
    crossed = [seen(1, unit(40, BOB, 0.3)), seen(2, unit(41, ALICE, 0.3), x=90)]
    assert book.add(0.5, crossed) == [2, 1]


def test_a_face_on_the_track_of_somebody_similar_goes_on_with_its_own_part() -> None:
    sister = unit(3, ALICE, 0.8)  # alike enough to be held for a change of pose
    book = TrackBook(Links(turn=0.4, rejoin=0.6))
    assert float(sister @ ALICE) > 0.6
    for i in range(5):
        book.add(i / 10, [seen(1, unit(i, ALICE, 0.2)), seen(2, unit(20 + i, sister, 0.2), x=90)])
    assert book.add(0.5, [seen(2, unit(40, ALICE, 0.2))]) == [1]
    assert book.add(0.6, [seen(2, None)]) == [1]
    both = [seen(2, unit(41, ALICE, 0.2)), seen(3, unit(42, sister, 0.2), x=90)]
    assert book.add(0.7, both) == [1, 2]


def test_a_part_is_never_in_two_places_at_once() -> None:
    book = TrackBook()
    book.add(0.0, [seen(1, ALICE)])
    book.add(0.1, [seen(2, ALICE)])
    both = book.add(0.2, [seen(1, ALICE), seen(2, ALICE, x=200)])
    assert len(set(both)) == 2
    assert book.together == {(1, 2): 1}


def test_those_seen_together_stay_apart_after_merging() -> None:
    target = {1: 1, 2: 2, 3: 1, 4: 4}
    assert pairs_after({(1, 2): 3, (1, 3): 9, (1, 4): 2, (2, 4): 4}, target) == {2: {4}, 4: {2}}
    assert pairs_after({(1, 2): 9, (1, 3): 9}, target) == {1: {2}, 2: {1}}


def test_faces_are_embedded_at_first_then_now_and_then_and_when_they_change() -> None:
    book = TrackBook()
    rng = np.random.default_rng(3)
    one, other = (rng.integers(0, 255, (1, 112, 96, 3), dtype=np.uint8) for _ in range(2))
    due = []
    for i in range(20):
        crops = other if i >= 16 else one
        wanted = book.due(i / 25, [1], crops)
        due.append(bool(wanted[0]))
        book.add(i / 25, [seen(1, ALICE if wanted[0] else None)])
    assert due[:3] == [True] * 3
    assert sum(due[3:16]) == 1  # once after 0.4 seconds
    assert due[16]  # another look


def test_links_follow_the_calibration() -> None:
    scores = np.random.default_rng(0).normal(0, 0.15, 400_000)
    links = Links.from_calibration(ImpostorCalibration.from_scores(scores))
    assert links.turn == pytest.approx(0.15 * 2.326, abs=0.01)
    assert links.rejoin == pytest.approx(0.15 * 3.719, abs=0.03)
    assert Links.from_calibration(None) == Links()
