"""The last pass: the video once more, with boxes and names, H.264 in MP4, its sound kept."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sphereid.progress import Canceled, Meter, Report
from sphereid.storage.encrypted_files import PLAIN, EncryptedFiles
from sphereid.video.draw import Painter
from sphereid.video.errors import VideoError
from sphereid.video.reader import VideoPicture, VideoReader
from sphereid.video.types import ShownFrame

_CLOCK: Final = Fraction(1, 90_000)
"""Fine enough for every frame rate, variable ones too."""
_COPIED: Final = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
"""Sound that MP4 holds as it is; any other is encoded anew as AAC."""
_BT709: Final = 1


def render(
    source: Path,
    target: Path,
    frames: Iterable[ShownFrame],
    painter: Painter,
    *,
    files: EncryptedFiles = PLAIN,
    report: Report | None = None,
    canceled: Canceled | None = None,
) -> None:
    """Write `source` with the faces of `frames` drawn in. Times are kept, so the sound stays in step.

    target: a `.mp4`; written under another name first, so that a half-written one never stands there.
    Raises CanceledError, VideoError.
    """
    part = target.with_name(target.name + ".part")
    try:
        with VideoReader(source, files=files) as reader:
            meter = Meter("render", reader.info.frames, report, canceled)
            with _begin(part, files) as container:
                _copy(reader, container, iter(frames), painter, meter)
        part.replace(target)
    except (av.FFmpegError, OSError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(
            "video_unwritable", f"cannot write {target.name}: {error.strerror or error}"
        ) from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _begin(part: Path, files: EncryptedFiles) -> Iterator[OutputContainer]:
    """The index goes in front of the pictures, so that a browser can start before all has come. For that
    FFmpeg reads its file once more; of an encrypted one it stays behind, and browsers ask for it first."""
    if files.vault is None:
        options = {"movflags": "+faststart"}
        with av.open(str(part), mode="w", format="mp4", container_options=options) as container:
            yield container
    else:
        with files.write(part) as file, av.open(file, mode="w", format="mp4") as container:
            yield container


def _copy(
    reader: VideoReader,
    container: OutputContainer,
    frames: Iterator[ShownFrame],
    painter: Painter,
    meter: Meter,
) -> None:
    pictures = _Pictures(reader, container)
    sound: _Sound | None = None
    if reader.info.sound:
        sound = _Sound(reader, container)
    container.start_encoding()
    done = 0
    for packet in reader.packets(sound=sound is not None):
        if sound is not None and packet.stream.index == sound.source.index:
            sound.add(packet)
            continue
        for picture in reader.decode(packet):
            image = picture.image()
            shown = next(frames, None)
            if shown is not None:
                image = painter.paint(image, shown.faces)
            pictures.add(picture, image)
            done = picture.index + 1
            meter.update(done)
    pictures.finish()
    if sound is not None:
        sound.finish()
    meter.update(done, force=True)


class _Pictures:
    """The H.264 track. Sides are cut to even numbers, which the usual 4:2:0 format needs."""

    def __init__(self, reader: VideoReader, container: OutputContainer) -> None:
        info = reader.info
        rate = Fraction(info.rate).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "21"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = max(2, info.width & ~1), max(2, info.height & ~1)
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = _CLOCK
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        aspect = reader.stream.sample_aspect_ratio
        if aspect:
            turned = info.width != reader.stream.width and info.width == reader.stream.height
            stream.sample_aspect_ratio = 1 / aspect if turned else aspect
        self._stream, self._container = stream, container
        self._last = -1

    def add(self, picture: VideoPicture, image: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        even = np.ascontiguousarray(image[: self._stream.height, : self._stream.width])
        frame = VideoFrame.from_ndarray(even, format="rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709"
        )
        frame.time_base = _CLOCK
        # Two frames at one time stamp occur in broken files; the container wants them apart.
        self._last = frame.pts = max(round(picture.time / _CLOCK), self._last + 1)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))


class _Sound:
    """The first sound track: copied where MP4 can hold it, otherwise encoded anew."""

    def __init__(self, reader: VideoReader, container: OutputContainer) -> None:
        self.source: AudioStream = reader.sound_stream()
        self._container = container
        self._start = reader.info.start
        self._copy = self.source.codec_context.name in _COPIED
        if self._copy:
            self._stream = container.add_stream_from_template(self.source)
        else:
            context = self.source.codec_context
            rate = min(max(context.sample_rate, 8_000), 48_000)
            layout = "mono" if context.channels == 1 else "stereo"
            self._stream = container.add_stream("aac", rate=rate, layout=layout)
        self._last = -(2**62)

    def add(self, packet: "Packet[Any]") -> None:
        if not self._copy:
            self._encode(packet)
            return
        if packet.dts is None or packet.pts is None:
            return
        shift = round(self._start / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        if packet.dts <= self._last:
            return
        self._last = packet.dts
        packet.stream = self._stream
        self._container.mux(packet)

    def _encode(self, packet: "Packet[Any]") -> None:
        try:
            frames = packet.decode()
        except av.FFmpegError:
            return
        for frame in frames:
            if not isinstance(frame, AudioFrame):
                continue
            if frame.pts is not None and frame.time_base is not None:
                frame.pts -= round(self._start / frame.time_base)
            self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        if not self._copy:
            self._container.mux(self._stream.encode(None))
