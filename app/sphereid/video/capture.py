"""Frames of a camera, a network stream or a file, as they come."""

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Final

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame

from sphereid.faces.types import RGBImage
from sphereid.video.errors import VideoError
from sphereid.video.reader import VideoReader

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 30.0
"""Seconds between two attempts to connect: doubled each time from the first to the longest."""
_CAMERAS: Final = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}

_PROTOCOLS: Final = "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https,httpproxy,crypto"
"""What FFmpeg may speak: a playlist on the network must not name files of this machine."""

Note = Callable[[str], None]


def frames(
    source: str, stopped: threading.Event, note: Note, *, timeout: float = 10.0, step: int = 1
) -> Iterator[tuple[float, RGBImage]]:
    """(seconds since the start, (H, W, 3) uint8 RGB) of each frame worth a look, until the end or `stopped`.

    source: a camera's number, a URL (rtsp://, http://), or a file. Of cameras and streams the newest frame is
    given and those missed meanwhile are lost; a connection that breaks is made again, with growing pauses. Of
    files every `step`-th frame is given. note: gets one line when a connection is lost or made again.
    timeout: seconds without a frame after which a connection counts as lost. Raises VideoError when a file
    cannot be read.
    """
    if Path(source).is_file():
        with VideoReader(Path(source)) as reader:
            for picture in reader.pictures():
                if stopped.is_set():
                    return
                if picture.index % step == 0:
                    yield picture.time, picture.image()
        return
    if not (source.isdigit() or "://" in source):
        raise VideoError("video_unreadable", f"{source} is no file, no camera number and no URL")
    feed = _Feed(source, stopped, note, timeout)
    yield from feed.frames()


class _Feed:
    """Reads a live source in a thread of its own and keeps its newest frame."""

    def __init__(self, source: str, stopped: threading.Event, note: Note, timeout: float) -> None:
        self._source, self._stopped, self._note, self._timeout = source, stopped, note, timeout
        self._arrived = threading.Condition()
        self._frame: tuple[float, VideoFrame] | None = None
        self._start = monotonic()

    def frames(self) -> Iterator[tuple[float, RGBImage]]:
        thread = threading.Thread(target=self._read, name="capture", daemon=True)
        thread.start()
        while not self._stopped.is_set():
            with self._arrived:
                self._arrived.wait_for(lambda: self._frame is not None, timeout=0.2)
                newest, self._frame = self._frame, None
            if newest is not None:
                time, frame = newest
                yield time, np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
        thread.join(self._timeout)

    def _read(self) -> None:
        wait = FIRST_WAIT
        while not self._stopped.is_set():
            try:
                with self._open() as container:
                    for frame in container.decode(video=0):
                        if self._stopped.is_set():
                            return
                        if wait != FIRST_WAIT:
                            self._note("connected again")
                            wait = FIRST_WAIT
                        with self._arrived:
                            self._frame = monotonic() - self._start, frame
                            self._arrived.notify()
                reason = "the stream ended"
            except (av.FFmpegError, OSError, IndexError) as error:
                reason = getattr(error, "strerror", None) or "no picture"
            # The source may be an address with a password: it is not repeated.
            self._note(f"connection lost ({reason}); trying again in {wait:g} s")
            self._stopped.wait(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _open(self) -> InputContainer:
        if self._source.isdigit():
            kind = _CAMERAS.get(sys.platform)
            device = f"/dev/video{self._source}" if kind == "v4l2" else self._source
            return av.open(device, format=kind, timeout=self._timeout)
        options = {"protocol_whitelist": _PROTOCOLS}
        if self._source.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        return av.open(self._source, options=options, timeout=self._timeout)
