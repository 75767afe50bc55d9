"""A source watched frame by frame: who came, who left. The terminal and the service's monitors share it."""

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from sphereid.faces.types import RGBImage
from sphereid.video.live import LiveFace
from sphereid.video.presence import ABSENT, Event, PresenceLog

if TYPE_CHECKING:
    from sphereid.video.capture import Note

_STEP: Final = 3
"""Every how many frames of a file faces are searched."""


class Session(Protocol):
    """A stream that decides frame by frame; see `sphereid.video.live.LiveSession`."""

    def frame(self, time: float, image: RGBImage) -> Sequence[LiveFace]: ...


def watch(
    source: str,
    session: Session,
    stopped: threading.Event,
    note: "Note",
    *,
    rate: float | None = None,
    timeout: float = 10.0,
) -> Iterator[list[Event]]:
    """The events of each frame that was looked at, often none, until the end of a file or `stopped`.

    source, note, timeout: as `sphereid.video.capture.frames` takes them. rate: frames a second, at most; of a
    file by its own time. Raises VideoError.
    """
    from sphereid.video.capture import frames  # loads FFmpeg: not before something is watched

    log = PresenceLog()
    is_file = Path(source).is_file()
    last, pause = 0.0, 0.0 if rate is None else 1.0 / rate
    due = 0.0
    for time, image in frames(source, stopped, note, timeout=timeout, step=_STEP):
        if is_file and time < due:
            continue
        begun, due = monotonic(), time + pause
        last = time
        yield log.update(time, session.frame(time, image))
        if not is_file and (rest := pause - (monotonic() - begun)) > 0:
            stopped.wait(rest)
    if not stopped.is_set():
        yield log.update(last + 2 * ABSENT, [])


def event_json(event: Event, at: datetime) -> dict[str, Any]:
    """An event as programs get it, wherever they do. at: when it was told."""
    identity = event.identity
    return {
        "event": event.kind,
        "at": at.isoformat(timespec="milliseconds"),
        "time": round(event.time, 3),
        "identity": None if identity is None else {"id": identity.id, "name": identity.name},
        "track": event.track,
        "similarity": None if event.similarity is None else round(event.similarity, 4),
    }
