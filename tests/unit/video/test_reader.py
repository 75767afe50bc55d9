"""Files as they come from phones, recorders and broken uploads."""

from pathlib import Path

import numpy as np
import pytest
from sphereid.video.errors import VideoError
from sphereid.video.reader import VideoReader

from tests.unit.video.clips import plain, write_clip


def test_every_frame_in_order_with_its_time(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", plain(20), rate=10)
    with VideoReader(path) as reader:
        assert (reader.info.width, reader.info.height, reader.info.frames) == (128, 96, 20)
        assert reader.info.rate == pytest.approx(10)
        assert not reader.info.sound
        pictures = [(p.index, p.time, float(p.image().mean())) for p in reader.pictures()]
        assert not reader.truncated
    assert [p[0] for p in pictures] == list(range(20))
    assert [p[1] for p in pictures] == pytest.approx([i / 10 for i in range(20)], abs=1e-3)
    assert [p[2] for p in pictures] == pytest.approx([20 + 5 * i for i in range(20)], abs=4)


def test_variable_frame_rate_keeps_real_times(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.08, 0.5, 0.52, 2.0, 2.04]
    path = write_clip(tmp_path / "a.mp4", plain(7), times=times)
    with VideoReader(path) as reader:
        assert [p.time for p in reader.pictures()] == pytest.approx(times, abs=1e-3)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_tags_turn_the_picture_upright(tmp_path: Path, degrees: int) -> None:
    frame = np.zeros((64, 128, 3), dtype=np.uint8)
    frame[:32, :64] = 255  # a white quarter at the top left of what is stored
    path = write_clip(tmp_path / "a.mp4", [frame] * 3, rotation=degrees)
    with VideoReader(path) as reader:
        image = next(iter(reader.pictures())).image()
        info = reader.info
    assert image.shape[:2] == (info.height, info.width)
    # FFmpeg counts the angle counterclockwise, and so does rot90.
    expected = np.rot90(frame, round(degrees / 90))
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 6


def test_a_truncated_file_gives_what_is_left(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(100)]
    path = write_clip(tmp_path / "a.mp4", frames, options={"movflags": "+faststart"})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with VideoReader(path) as reader:
        count = sum(1 for _ in reader.pictures())
        assert 10 < count < 90
        assert reader.truncated


def test_a_file_that_lost_its_index_is_one_clear_error(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", plain(50))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoError, match="index") as caught:
        VideoReader(path)
    assert caught.value.code == "video_unreadable"


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "video_empty"), (b"hello, world\n" * 50, "video_unreadable"), (b"\0" * 4096, "video_unreadable")],
)
def test_what_is_no_video_is_one_clear_error(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError) as caught, VideoReader(path) as reader:
        list(reader.pictures())
    assert caught.value.code == code


def test_sound_without_picture_is_named(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), dtype=np.float32), "fltp", "stereo")
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError) as caught:
        VideoReader(path)
    assert caught.value.code == "video_without_picture"


def test_bytes_damaged_in_the_middle_cost_only_some_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", plain(60), options={"movflags": "+faststart"})
    content = bytearray(path.read_bytes())
    middle = len(content) - len(content) // 4
    content[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(content)
    with VideoReader(path) as reader:
        assert sum(1 for _ in reader.pictures()) >= 20
