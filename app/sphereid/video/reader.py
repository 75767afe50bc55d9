"""Decode a video file to upright RGB frames with their real times."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sphereid.faces.types import RGBImage
from sphereid.storage.encrypted_files import PLAIN, EncryptedFiles
from sphereid.video.errors import VideoError

MAX_PIXELS: Final = 40_000_000
"""Most pixels of a frame: 8K fits, a decompression bomb doesn't."""
_BAD_PACKETS: Final = 250
"""Undecodable packets in a row after which the rest of a file is given up."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What the file says of itself.

    width, height: pixels of the upright picture. duration: seconds from the start to the
    last picture's end, None where unknown. rate: mean frames a
    second. frames: their expected number, None where unknown. start: time stamp in seconds that counts as 0.
    """

    width: int
    height: int
    duration: float | None
    rate: float
    frames: int | None
    start: float
    codec: str
    sound: bool


@dataclass(frozen=True, slots=True, eq=False)
class VideoPicture:
    """A decoded frame. index: counts from 0. time: seconds from the start of the file."""

    index: int
    time: float
    raw: VideoFrame

    def image(self) -> RGBImage:
        """(H, W, 3) uint8 RGB, turned upright as the file's rotation tag says."""
        pixels = self.raw.to_ndarray(format="rgb24")
        turns = round(self.raw.rotation / 90) % 4
        upright = np.rot90(pixels, turns) if turns else pixels
        return np.ascontiguousarray(upright, dtype=np.uint8)


class VideoReader:
    """An open video file; a context manager. Iterate `pictures` once.

    After the last picture `truncated` tells whether the file broke off, and `bad_packets` how many packets
    could not be decoded.
    """

    def __init__(self, path: Path, name: str | None = None, files: EncryptedFiles = PLAIN) -> None:
        """name: of the file in messages (default: as it is on disk). files: what opens the file.

        Raises VideoError when nothing can be read from the file, FileNotFoundError when there is none.
        """
        name = name or path.name
        if path.stat().st_size == 0:
            raise VideoError("video_empty", f"{name} has no bytes: the upload or recording never finished")
        try:
            self._container = _open(path, files)
        except (av.FFmpegError, ValueError) as error:
            raise VideoError(
                "video_unreadable",
                f"{name} cannot be read as a video. An MP4 that was cut off before its end has lost its "
                "index and cannot be played either; record or export it again",
            ) from error
        try:
            self.stream = _picture_stream(self._container, name)
            self.stream.thread_type = "AUTO"
            self.info = _info(self._container, self.stream, name, _rotation(path, files, self.stream.index))
        except BaseException:
            self._container.close()
            raise
        self.truncated = False
        self.bad_packets = 0
        self._next = 0
        self._last = -1.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; idempotent."""
        self._container.close()

    def pictures(self) -> Iterator[VideoPicture]:
        """Every frame that can be decoded, in the order of display; times never go backwards.

        Raises VideoError when not a single frame can be decoded.
        """
        for packet in self.packets():
            if packet.stream.index == self.stream.index:
                yield from self.decode(packet)

    def packets(self, *, sound: bool = False) -> "Iterator[Packet[Any]]":
        """Packets of the picture, and of the first sound track if asked; ends with empty ones that flush."""
        streams = [self.stream, *(self._container.streams.audio[:1] if sound else ())]
        packets = self._container.demux(*streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.FFmpegError:
                self.truncated = True
                break
            yield packet
            if self.bad_packets >= _BAD_PACKETS and self._next == 0:
                break
        if self._next == 0:
            raise VideoError(
                "video_unreadable", "not one frame of the video can be decoded: the file is damaged"
            )
        end = self.info.duration
        if end is not None and self._last < end - max(1.0, 0.02 * end):
            self.truncated = True

    def sound_stream(self) -> AudioStream:
        """The first sound track; `info.sound` says whether there is one."""
        return self._container.streams.audio[0]

    def decode(self, packet: "Packet[Any]") -> Iterator[VideoPicture]:
        """The frames that a picture packet completes."""
        try:
            frames = packet.decode()
        except av.FFmpegError:
            self.bad_packets += 1
            return
        for frame in frames:
            if not isinstance(frame, VideoFrame):
                continue
            if frame.width * frame.height > MAX_PIXELS:
                raise VideoError("video_too_large", _too_large(frame.width, frame.height))
            yield self._picture(frame)

    def _picture(self, frame: VideoFrame) -> VideoPicture:
        time = self._last + 1 / self.info.rate if self._next else 0.0
        if frame.pts is not None and frame.time_base is not None:
            time = float(frame.pts * frame.time_base) - self.info.start
        time = max(time, self._last, 0.0)
        picture = VideoPicture(self._next, time, frame)
        self._next += 1
        self._last = time
        return picture


def _picture_stream(container: InputContainer, name: str) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise VideoError("video_without_picture", f"{name} holds no moving picture, only sound or data")


def _info(container: InputContainer, stream: VideoStream, name: str, rotation: int) -> VideoInfo:
    context = stream.codec_context
    if context.width < 1 or context.height < 1:
        raise VideoError("video_unreadable", f"{name} names no picture size: the file is damaged or cut off")
    if context.width * context.height > MAX_PIXELS:
        raise VideoError("video_too_large", _too_large(context.width, context.height))
    start = max(container.start_time or 0, 0) / av.time_base
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    duration = None
    if stream.duration is not None and stream.time_base is not None:
        duration = float((stream.duration + (stream.start_time or 0)) * stream.time_base) - start
    elif container.duration is not None:
        duration = container.duration / av.time_base
    rotated = rotation % 180 == 90
    frames = stream.frames or (round(duration * rate) if duration else None)
    return VideoInfo(
        width=context.height if rotated else context.width,
        height=context.width if rotated else context.height,
        duration=duration,
        rate=rate,
        frames=frames,
        start=start,
        codec=context.name,
        sound=bool(container.streams.audio),
    )


def _open(path: Path, files: EncryptedFiles) -> InputContainer:
    source = str(path) if files.plain(path) else files.read(path)  # FFmpeg's own way of reading is faster
    return av.open(source, mode="r", metadata_errors="replace")


def _rotation(path: Path, files: EncryptedFiles, stream: int) -> int:
    """The rotation tag in degrees, which hangs on decoded frames. The file is opened once more for it: one
    that is rewound begins at its first key frame, and sound from before that is lost."""
    with (
        contextlib.suppress(av.FFmpegError, StopIteration),
        _open(path, files) as container,
    ):
        frame = next(container.decode(container.streams[stream]))
        return frame.rotation if isinstance(frame, VideoFrame) else 0
    return 0


def _too_large(width: int, height: int) -> str:
    return (
        f"frames of {width}×{height} are over the limit of {MAX_PIXELS // 1_000_000} megapixels: scale down"
    )
