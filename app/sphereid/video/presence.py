"""From faces frame by frame to events: somebody arrived, somebody left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sphereid.gallery.types import Identity
from sphereid.video.live import LiveFace

ABSENT: Final = 3.0
"""Seconds out of sight after which somebody has left."""
_SURE: Final = 2
"""Frames in which somebody must be named before it is told."""


@dataclass(frozen=True, slots=True)
class Event:
    """time: seconds since the start. identity: None for somebody unknown. track: its number. similarity: the
    cosine that decided, None where nothing could be compared."""

    kind: Literal["arrived", "left"]
    time: float
    identity: Identity | None
    track: int
    similarity: float | None


@dataclass(slots=True)
class _Presence:
    event: Event
    last: float
    frames: int = 1
    told: bool = False


class PresenceLog:
    """Who is there. Named people count once, however many tracks they take; unknown ones by their track."""

    def __init__(self) -> None:
        self._there: dict[str, _Presence] = {}

    def update(self, time: float, faces: Sequence[LiveFace]) -> list[Event]:
        """The events that a frame brings. time: seconds, never decreasing."""
        events = []
        for face in faces:
            key = f"track {face.track}" if face.identity is None else f"identity {face.identity.id}"
            if face.identity is not None:
                self._there.pop(f"track {face.track}", None)  # now we know who it is
            held = self._there.get(key)
            if held is None:
                event = Event("arrived", time, face.identity, face.track, face.similarity)
                held = self._there[key] = _Presence(event, time, 0)
            held.last, held.frames = time, held.frames + 1
            if not held.told and held.frames >= _SURE:
                held.told = True
                events.append(held.event)
        for key, held in list(self._there.items()):
            if time - held.last > ABSENT:
                del self._there[key]
                if held.told:
                    was = held.event
                    events.append(Event("left", held.last, was.identity, was.track, was.similarity))
        return events
