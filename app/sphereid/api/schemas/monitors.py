"""The JSON of monitors."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from sphereid.api.schemas import Input, Name, Output, Slug
from sphereid.monitors import types as m
from sphereid.monitors.allowed import shown as without_secrets

Url = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[\x21-\x7e]+$")]


class WebhookCreate(Input):
    """Who is told of events."""

    url: Url = Field(description="http or https, below an address in SPHEREID_MONITORS__WEBHOOKS.")


class MonitorCreate(Input):
    """A source to watch."""

    id: Slug | None = Field(None, description="Made by the service when left out.")
    name: Name = ""
    source: Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00-\x1f\x7f]+$")] = Field(
        description="`rtsp://…`, `http://…`, a camera's number or a file of the server, as "
        "SPHEREID_MONITORS__SOURCES allows."
    )
    gallery: Slug = Field("default", description="The gallery whose people are looked for.")
    strangers: bool = Field(True, description="Also tell of people who are not enrolled.")
    rate: float = Field(5.0, ge=0.1, le=30, description="Frames looked at a second, at most.")
    min_face: int | None = Field(None, ge=12, le=10_000, description="Shortest side of a face in pixels.")
    min_detection_score: float | None = Field(
        None, ge=0, lt=1, description="Lowest detection score of a face (default: the service's setting)."
    )
    webhook: WebhookCreate | None = None


class Deliveries(Output):
    """How a webhook fares since the service started. dead: events that were given up."""

    delivered: int
    waiting: int
    retries: int
    dead: int
    last_error: str | None


class MonitorWebhook(Output):
    """A webhook. secret: for its signatures; only in the answer that made it."""

    url: str
    secret: str | None = None


class Monitor(Output):
    """A monitor and how it fares since the service started. source: without its password and query."""

    id: str
    name: str
    source: str
    gallery: str
    strangers: bool
    rate: float
    created_at: datetime
    state: Literal["connecting", "running", "reconnecting", "ended", "failed"]
    detail: str | None = Field(description="Why it is not running.")
    frames: int
    events: int
    reconnects: int
    last_frame_at: datetime | None
    webhook: MonitorWebhook | None
    deliveries: Deliveries | None


class MonitorList(Output):
    """All monitors, oldest first."""

    items: list[Monitor]


class MonitorReceipt(Output):
    """A monitor that is gone."""

    id: str
    deleted: bool


BODIES: tuple[type[Input], ...] = (MonitorCreate,)


def shown(monitor: m.Monitor, status: m.Status, *, secret: bool = False) -> Monitor:
    """A monitor as the API shows it. secret: with its webhook's."""
    hook = monitor.webhook
    deliveries = status.deliveries
    return Monitor(
        id=monitor.id,
        name=monitor.name,
        source=without_secrets(monitor.source),
        gallery=monitor.gallery,
        strangers=monitor.strangers,
        rate=monitor.rate,
        created_at=monitor.created_at,
        state=status.state,
        detail=status.detail,
        frames=status.frames,
        events=status.events,
        reconnects=status.reconnects,
        last_frame_at=status.last_frame_at,
        webhook=None
        if hook is None
        else MonitorWebhook(url=without_secrets(hook.url), secret=hook.secret if secret else None),
        deliveries=None
        if deliveries is None
        else Deliveries(
            delivered=deliveries.delivered,
            waiting=deliveries.waiting,
            retries=deliveries.retries,
            dead=deliveries.dead,
            last_error=deliveries.last_error,
        ),
    )
