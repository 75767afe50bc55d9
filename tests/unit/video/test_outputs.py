"""Decisions along tracks, and the files that tell of them."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from sphereid.gallery.thresholds.decisions import decide
from sphereid.gallery.types import Candidate, Decision, Identity, Threshold
from sphereid.video.colors import OUTLIER, assign_colors, rgb
from sphereid.video.decide import decide_parts, show_faces, show_tracks
from sphereid.video.draw import Painter, write_timeline
from sphereid.video.outputs import COLUMNS, people, read_frames, rows, write_csv, write_frames, write_vtt
from sphereid.video.reader import VideoReader
from sphereid.video.render import render
from sphereid.video.segments import segments
from sphereid.video.spool import AnalyzedFrame, Spool
from sphereid.video.tracks import Links, TrackBook
from sphereid.video.types import Shown, ShownFrame, Sighting, Verdict

from tests.unit.video.clips import plain, write_clip
from tests.unit.video.test_tracks import ALICE, BOB, unit

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def identity(name: str, **metadata: str) -> Identity:
    return Identity(name, "g", name.title(), metadata, 1, NOW, NOW)


class PlainMatcher:
    """Cosines by definition: the oracle for the gallery behind the port."""

    def __init__(self, enrolled: Mapping[str, np.ndarray], threshold: float = 0.5) -> None:
        self._enrolled = enrolled
        self._threshold = Threshold(threshold, "cosine")

    def identify(self, vectors: np.ndarray) -> Sequence[Decision]:
        answers = []
        for vector in vectors:
            found = [Candidate(name, "f", float(v @ vector)) for name, v in self._enrolled.items()]
            answers.append(decide(sorted(found, key=lambda c: -c.similarity), self._threshold, 0.0))
        return answers

    def identities(self, ids: Sequence[str]) -> Mapping[str, Identity]:
        return {name: identity(name) for name in ids}


MATCHER = PlainMatcher({"alice": ALICE, "bob": BOB})


def sighting(chain: int, vector: np.ndarray | None, x: float = 0.0, part: int = 0) -> Sighting:
    return Sighting((x, 0.0, x + 50, 60.0), 0.99, 0.8, chain, part or chain, vector)


def book_of(frames: Sequence[Sequence[Sighting]]) -> TrackBook:
    book = TrackBook()
    for i, faces in enumerate(frames):
        book.add(i / 10, faces)
    return book


def test_pooled_evidence_names_a_face_that_no_single_frame_would() -> None:
    noisy = [unit(100 + i, ALICE, 2.2) for i in range(12)]
    assert sum(d.outcome == "match" for d in MATCHER.identify(np.stack(noisy))) < 6
    book = TrackBook(Links(turn=-1.0, rejoin=2.0))
    for i, vector in enumerate(noisy):
        book.add(i / 10, [sighting(1, vector)])
    verdict = decide_parts(book.parts, {}, MATCHER)[1]
    assert verdict.identity == "alice"
    assert verdict.similarity is not None
    assert verdict.mean_similarity == pytest.approx(float(np.average([v @ ALICE for v in noisy])), abs=1e-5)


def test_two_people_on_screen_never_get_one_name() -> None:
    near, far = unit(5, ALICE, 0.3), unit(6, ALICE, 0.9)
    book = book_of([[sighting(1, far), sighting(2, near, 200)]] * 3)
    verdicts = decide_parts(book.parts, {1: {2}, 2: {1}}, MATCHER)
    assert verdicts[2].identity == "alice"
    assert verdicts[1].identity is None
    assert verdicts[1].reason == "assigned_elsewhere"
    apart = decide_parts(book.parts, {}, MATCHER)
    assert apart[1].identity == apart[2].identity == "alice"


def test_a_stranger_stays_nameless_with_the_best_similarity() -> None:
    book = book_of([[sighting(1, unit(77))]] * 3)
    verdict = decide_parts(book.parts, {}, MATCHER)[1]
    assert (verdict.identity, verdict.reason) == (None, "below_threshold")
    assert verdict.similarity == pytest.approx(max(float(unit(77) @ v) for v in (ALICE, BOB)), abs=1e-5)


def test_boxes_move_evenly_between_analyzed_frames_and_through_short_gaps() -> None:
    def frame(index: int, x: float | None) -> AnalyzedFrame:
        analyzed = index % 2 == 0
        faces = (sighting(1, None, x),) if x is not None else ()
        return AnalyzedFrame(index, index / 10, faces if analyzed else None)

    # Found at 0, lost at 2, found again at 4 and 6; 7 comes after the last search.
    frames = [frame(0, 0.0), frame(1, None), frame(2, None), frame(3, None), frame(4, 40.0)]
    frames += [frame(5, None), frame(6, 60.0), frame(7, None)]
    shown = list(show_tracks(frames, {1: 1}, {1: Verdict("alice", 0.9, 0.8, None, "above_threshold")}))
    assert [f.index for f in shown] == list(range(8))
    assert [f.faces[0].box[0] for f in shown] == pytest.approx([0, 10, 20, 30, 40, 50, 60, 60])
    assert [f.faces[0].interpolated for f in shown] == [False, True, True, True, False, True, False, True]


def test_a_long_gap_is_not_bridged() -> None:
    frames = [AnalyzedFrame(i, i / 10, (sighting(1, None),) if i in (0, 10) else ()) for i in range(12)]
    shown = list(show_tracks(frames, {1: 1}, {1: Verdict(None, None, None, None, "")}))
    assert [len(f.faces) for f in shown] == [1, *[0] * 9, 1, 0]


def test_nobody_is_in_a_frame_twice_when_a_lost_track_goes_on_as_another() -> None:
    def frame(index: int, *faces: Sighting) -> AnalyzedFrame:
        return AnalyzedFrame(index, index / 10, faces)

    lost, other = (sighting(1, None, 0), sighting(2, None, 300))
    found = sighting(3, None, 10)
    frames = [frame(0, lost, other), frame(1, found, other), frame(2, found, other), frame(3, lost, found)]
    frames += [frame(4, lost, other), frame(5, other)]
    verdicts = {
        1: Verdict("alice", 0.8, 0.8, None, "above_threshold"),
        2: Verdict(None, 0.3, 0.3, None, "below_threshold"),
        3: Verdict("alice", 0.9, 0.9, None, "above_threshold"),
    }
    shown = [
        sorted((face.part, face.identity) for face in frame.faces)
        for frame in show_tracks(frames, {1: 1, 2: 2, 3: 3}, verdicts)
    ]
    assert shown[0] == shown[4] == [(1, "alice"), (2, None)]
    assert shown[1] == shown[2] == [(2, None), (3, "alice")]  # the lost one is not carried over it
    assert shown[3] == [(1, None), (2, None), (3, "alice")]  # both were detected: the more similar is she


def test_per_frame_decides_each_face_by_itself() -> None:
    frames = [
        AnalyzedFrame(0, 0.0, (sighting(1, ALICE),)),
        AnalyzedFrame(1, 0.1, (sighting(1, unit(77)),)),
        AnalyzedFrame(2, 0.2, (sighting(1, BOB), sighting(2, ALICE, 200))),
    ]
    shown = list(show_faces(frames, {1: 1, 2: 2}, MATCHER))
    assert [[face.identity for face in f.faces] for f in shown] == [["alice"], [None], ["bob", "alice"]]


def test_nobody_is_in_a_frame_twice() -> None:
    near, far = unit(5, ALICE, 0.3), unit(6, ALICE, 0.9)
    assert [d.outcome for d in MATCHER.identify(np.stack([near, far]))] == ["match", "match"]
    faces = (sighting(1, far), sighting(2, near, 90), sighting(3, BOB, 180), sighting(4, None, 270))
    frames = [AnalyzedFrame(0, 0.0, faces), AnalyzedFrame(1, 0.1, (sighting(1, far),))]
    first, second = show_faces(frames, {n: n for n in range(1, 5)}, MATCHER)
    assert [face.identity for face in first.faces] == [None, "alice", "bob", None]
    assert first.faces[0].similarity == pytest.approx(float(far @ ALICE))
    assert [face.identity for face in second.faces] == ["alice"]


def test_segments_say_from_when_to_when(tmp_path: Path) -> None:
    def frame(i: int, who: str | None) -> ShownFrame:
        return ShownFrame(i, round(i / 10, 6), (Shown((0, 0, 9, 9), 1, 1, who, round(0.5 + i / 100, 4)),))

    frames = [frame(i, "alice" if i < 5 else None) for i in range(8)] + [frame(30, "alice")]
    found = segments(frames, 0.1, None)
    assert [(s.identity, s.frames) for s in found] == [("alice", 5), (None, 3), ("alice", 1)]
    assert found[0].start == 0.0
    assert found[0].end == pytest.approx(0.5)
    assert found[0].mean_similarity == pytest.approx(0.52)
    path = tmp_path / "frames.jsonl"
    write_frames(path, frames)
    assert list(read_frames(path)) == frames


def test_tables_and_captions_are_safe_to_open(tmp_path: Path) -> None:
    who = {"evil": Identity("evil", "g", "=cmd()|<b>\n--> & co", {}, 1, NOW, NOW)}
    frames = [ShownFrame(i, 3599.9 + i / 10, (Shown((0, 0, 9, 9), 1, 1, "evil", 0.5),)) for i in range(3)]
    table = list(rows(segments(frames, 0.1, None), who, tmp_path / "crops"))
    write_csv(tmp_path / "t.csv", table)
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert tuple(read[0]) == COLUMNS
    assert read[0]["name"].startswith("'=")
    write_vtt(tmp_path / "t.vtt", table)
    text = (tmp_path / "t.vtt").read_text(encoding="utf-8")
    assert text.startswith("WEBVTT\n\n")
    assert "00:59:59.900 --> 01:00:00.200\n=cmd()|&lt;b&gt; --&gt; &amp; co\n" in text
    assert json.dumps(table)


def test_colors_are_stable_distinct_and_the_identity_may_choose() -> None:
    cast = [identity(f"person-{i}") for i in range(30)]
    alone, together = assign_colors(cast[:1]), assign_colors(cast)
    assert together["person-0"] == alone["person-0"]
    assert len(set(together.values())) == 30
    assert OUTLIER not in together.values()
    chosen = assign_colors([identity("a", color="#12ABef"), identity("b", color="red; drop")])
    assert chosen["a"] == "#12abef"
    assert chosen["b"].startswith("#")
    assert len(chosen["b"]) == 7


def test_the_timeline_shows_each_person_in_their_color(tmp_path: Path) -> None:
    frames = [
        ShownFrame(i, i / 10, (Shown((0, 0, 9, 9), 1, 1, "alice" if i < 50 else None, 0.5),))
        for i in range(100)
    ]
    found = segments(frames, 0.1, None)
    cast = {"alice": identity("alice")}
    write_timeline(tmp_path / "t.png", found, 10.0, cast, {"alice": "#ff0000"})
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / "t.png")), cv2.COLOR_BGR2RGB)[:-40]
    red = (picture == rgb("#ff0000")).all(axis=2)
    grey = (picture == rgb(OUTLIER)).all(axis=2)
    grey[:, : np.flatnonzero(red.any(axis=0)).min()] = False  # the soft edges of the names
    assert red.any(axis=0).sum() == pytest.approx(grey.any(axis=0).sum(), rel=0.05)
    assert np.flatnonzero(red.any(axis=0)).max() <= np.flatnonzero(grey.any(axis=0)).min()
    assert people(found, cast, {"alice": "#ff0000"})[0]["seconds"] == pytest.approx(5.0)
    write_timeline(tmp_path / "empty.png", [], 0.0, {}, {})
    assert cv2.imread(str(tmp_path / "empty.png")) is not None


def _streams(path: Path) -> dict[str, tuple[str, int]]:
    with av.open(str(path)) as container:
        packets = Counter(packet.stream.type for packet in container.demux() if packet.size)
        return {each.type: (each.codec_context.name, packets[each.type]) for each in container.streams}


@pytest.mark.parametrize(("suffix", "codec", "kept"), [("mp4", "aac", "aac"), ("mkv", "pcm_s16le", "aac")])
def test_the_annotated_video_keeps_times_and_sound(
    tmp_path: Path, suffix: str, codec: str, kept: str
) -> None:
    times = [0.0, 0.04, 0.3, 0.34, 0.9, 1.0]
    source = write_clip(tmp_path / f"a.{suffix}", plain(6), times=times, sound=codec)
    frames = [ShownFrame(i, t, (Shown((40, 40, 80, 80), 1, 1, "a", 0.5),)) for i, t in enumerate(times)]
    target = tmp_path / "out.mp4"
    render(source, target, frames, Painter({"a": "Alice"}, {"a": "#ff0000"}))
    streams = _streams(target)
    assert streams["video"] == ("h264", 6)
    assert streams["audio"][0] == kept
    assert streams["audio"][1] > 35  # 1.04 s in packets of 1024 samples
    with VideoReader(target) as reader:
        pictures = [(p.time, p.image()) for p in reader.pictures()]
    assert [t for t, _ in pictures] == pytest.approx(times, abs=0.002)
    edge = pictures[2][1][60, 39:42].astype(int)
    assert (edge[:, 0] - edge[:, 2]).max() > 80  # the box is there, and red
    assert not list(tmp_path.glob("*.part"))


def test_sound_from_before_the_first_picture_is_kept(tmp_path: Path) -> None:
    times = [0.8 + n / 25 for n in range(10)]
    source = write_clip(tmp_path / "a.mp4", plain(10), times=times, sound="aac")
    render(source, tmp_path / "out.mp4", [], Painter({}, {}))
    assert _streams(tmp_path / "out.mp4")["audio"] == _streams(source)["audio"]


def test_odd_sides_and_rotation_come_out_upright(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", plain(3, 96, 130), rotation=90)
    render(source, tmp_path / "out.mp4", [], Painter({}, {}))
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert (reader.info.width, reader.info.height) == (96, 130)


def test_the_working_file_goes_on_after_a_crash(tmp_path: Path) -> None:
    header = {"bytes": 5}
    path = tmp_path / "spool"
    frames = [AnalyzedFrame(0, 0.0, (sighting(1, ALICE),)), AnalyzedFrame(1, 0.1, None)]
    with Spool(path, header) as spool:
        for frame in frames:
            spool.append(frame)
    with path.open("ab") as file:
        file.write(b'{"i":2,"t":0.2,"fa')  # killed in the middle of a line
    with Spool(path, header) as spool:
        again = list(spool.frames())
        spool.append(AnalyzedFrame(2, 0.2, ()))
    assert [f.index for f in again] == [0, 1]
    assert again[1].sightings is None
    assert again[0].sightings is not None
    assert again[0].sightings[0].vector == pytest.approx(ALICE, abs=1e-3)
    with Spool(path, header) as spool:
        assert [f.index for f in spool.frames()] == [0, 1, 2]
    with Spool(path, {"bytes": 6}) as spool:
        assert list(spool.frames()) == []
