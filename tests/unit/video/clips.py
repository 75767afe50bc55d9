"""Small video files made from nothing, with whatever oddity a test needs."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def write_clip(
    path: Path,
    frames: Sequence[Pixels],
    *,
    times: Sequence[float] | None = None,
    rate: int = 25,
    rotation: int = 0,
    sound: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write frames, (H, W, 3) uint8 RGB with even sides. times: seconds of each (default: `rate` a second).
    rotation: degrees of the display matrix. sound: codec of a tone that lasts as long, None for silence."""
    times = times or [index / rate for index in range(len(frames))]
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "ultrafast"})
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, 90_000)
        if rotation:
            video.set_display_rotation(rotation)
        audio = container.add_stream(sound, rate=44_100) if sound else None
        if audio is not None:
            audio.codec_context.layout = "mono"
        for time, pixels in zip(times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = round(time * 90_000), Fraction(1, 90_000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            wanted = audio.codec_context.format.name
            resampler = av.AudioResampler(format=wanted, layout="mono", rate=44_100, frame_size=1024)
            tone = np.sin(np.arange(int((times[-1] + 1 / rate) * 44_100)) * 2 * np.pi * 440 / 44_100)
            source = av.AudioFrame.from_ndarray((tone * 8000).astype(np.int16)[None], "s16", "mono")
            source.sample_rate, source.pts, source.time_base = 44_100, 0, Fraction(1, 44_100)
            for piece in (*resampler.resample(source), *resampler.resample(None)):
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
    return path


def plain(count: int, height: int = 96, width: int = 128) -> list[Pixels]:
    """Frames that tell their number by their brightness."""
    return [np.full((height, width, 3), 20 + 5 * index % 220, dtype=np.uint8) for index in range(count)]
