"""What a monitor is, and what it says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

State = Literal["connecting", "running", "reconnecting", "ended", "failed"]


@dataclass(frozen=True, slots=True)
class Webhook:
    """Who is told of events. secret: `whsec_` and base64, as `signing` takes it."""

    url: str
    secret: str


@dataclass(frozen=True, slots=True)
class Monitor:
    """A source to watch. It is kept on disk as it stands here, the source's password included.

    source: an address, a camera's number or a file. strangers: also tell of people who are not enrolled.
    rate: frames looked at a second, at most. min_face: pixels; min_score: in [0, 1] (None: the defaults).
    over: a file that was watched to its end; it is not watched again after a restart.
    """

    id: str
    name: str
    source: str
    gallery: str
    created_at: datetime
    strangers: bool = True
    rate: float = 5.0
    min_face: int | None = None
    min_score: float | None = None
    webhook: Webhook | None = None
    over: bool = False


@dataclass(frozen=True, slots=True)
class Deliveries:
    """How a webhook fares. waiting: events that wait for their first or next try. dead: given up for good."""

    delivered: int = 0
    waiting: int = 0
    retries: int = 0
    dead: int = 0
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """How a monitor fares since the service started. detail: why it is not running, for people."""

    state: State
    frames: int
    events: int
    reconnects: int
    last_frame_at: datetime | None
    detail: str | None
    deliveries: Deliveries | None


@dataclass(frozen=True, slots=True)
class Told:
    """An event as watchers get it. number: rises by one with each event of a monitor, from 1."""

    number: int
    body: Mapping[str, Any]
