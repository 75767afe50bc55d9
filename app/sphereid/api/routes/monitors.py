"""Monitors: cameras that the service watches by itself."""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from time import monotonic
from typing import Annotated, Final

import anyio.to_thread
from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import StreamingResponse

from sphereid.api.body import json_schema, read_json
from sphereid.api.dependencies import ContextDep, OnceDep, PartsDep, problems
from sphereid.api.schemas import Slug
from sphereid.api.schemas.monitors import Monitor, MonitorCreate, MonitorList, MonitorReceipt, shown
from sphereid.monitors.errors import MonitorError
from sphereid.monitors.runner import MonitorRunner

router = APIRouter(prefix="/v1/monitors", tags=["monitors"])
MonitorId = Annotated[Slug, Path(description="The monitor's id.", examples=["door"])]
LOOK_EVERY: Final = 0.25
"""Seconds between two looks for events."""
HEARTBEAT: Final = 15.0
"""Seconds of silence after which a watcher gets a comment, so that nobody takes the connection for dead."""


@router.get("", summary="List the monitors", responses=problems(422))
async def list_monitors(parts: PartsDep) -> MonitorList:
    """All monitors and how they fare, oldest first."""
    runner = parts.monitors
    return MonitorList(items=[shown(each, runner.status(each.id)) for each in runner.list()])


@router.post(
    "",
    summary="Watch a source",
    status_code=201,
    response_model=Monitor,
    responses=problems(403, 404, 408, 409, 413, 415, 422),
    openapi_extra=json_schema(MonitorCreate),
)
async def create_monitor(parts: PartsDep, context: ContextDep, once: OnceDep) -> Response:
    """Watches from now on, also after a restart; a connection that breaks is made again, with growing pauses.
    Who comes and goes is told over `/v1/monitors/{monitor}/events` and to the webhook, whose secret is in
    this answer and in no other. Sources and webhooks must be allowed by the service's settings."""
    body = await read_json(context.request, MonitorCreate, context.limits)

    def create() -> Monitor:
        made = parts.monitors.create(
            id=body.id,
            name=body.name,
            source=body.source,
            gallery=body.gallery,
            strangers=body.strangers,
            rate=body.rate,
            min_face=body.min_face,
            min_score=body.min_detection_score,
            webhook=None if body.webhook is None else body.webhook.url,
        )
        return shown(made, parts.monitors.status(made.id), secret=True)

    return await once(body.model_dump_json().encode(), partial(anyio.to_thread.run_sync, create), 201)


@router.get("/{monitor}", summary="Show a monitor", responses=problems(404, 422))
async def get_monitor(monitor: MonitorId, parts: PartsDep) -> Monitor:
    """State, frames, events, and what its webhook took and did not take."""
    return shown(parts.monitors.get(monitor), parts.monitors.status(monitor))


@router.delete(
    "/{monitor}",
    summary="Delete a monitor",
    response_model=MonitorReceipt,
    responses=problems(404, 409, 422),
)
async def delete_monitor(monitor: MonitorId, parts: PartsDep, once: OnceDep) -> Response:
    """Stops watching. Events that its webhook did not take yet are lost."""

    def delete() -> MonitorReceipt:
        parts.monitors.delete(monitor)
        return MonitorReceipt(id=monitor, deleted=True)

    return await once(b"", partial(anyio.to_thread.run_sync, delete))


@router.get(
    "/{monitor}/events",
    summary="Follow a monitor",
    response_class=StreamingResponse,
    responses=problems(404, 422)
    | {200: {"description": "`presence` and `monitor` events.", "content": {"text/event-stream": {}}}},
)
async def follow_monitor(
    monitor: MonitorId,
    parts: PartsDep,
    request: Request,
    last_event_id: Annotated[
        int | None,
        Header(
            ge=0,
            le=2**53,
            description="Go on after this event, as far as events are kept; 0: from the first. They are "
            "numbered anew when the service starts.",
        ),
    ] = None,
) -> StreamingResponse:
    """Server-sent events: `presence` for everybody who came or left, `monitor` when its state changes,
    `deleted` in the end. Comments keep the connection alive."""
    status = parts.monitors.status(monitor)
    after = status.events if last_event_id is None else last_event_id
    return StreamingResponse(
        # An event that is not there yet was told before the service started.
        _events(parts.monitors, monitor, request, after if after <= status.events else 0),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(runner: MonitorRunner, monitor: str, request: Request, after: int) -> AsyncIterator[str]:
    last, spoken = "", monotonic()
    while not await request.is_disconnected():
        try:
            told = runner.told(monitor, after)
            status = runner.status(monitor)
            now = shown(runner.get(monitor), status)
        except MonitorError:
            yield f"event: deleted\ndata: {monitor}\n\n"
            return
        state = f"{status.state} {status.detail}"
        if state != last:
            last, spoken = state, monotonic()
            yield f"event: monitor\ndata: {now.model_dump_json()}\n\n"
        for each in told:
            after, spoken = each.number, monotonic()
            yield f"event: presence\nid: {each.number}\ndata: {json.dumps(each.body)}\n\n"
        if monotonic() - spoken >= HEARTBEAT:
            spoken = monotonic()
            yield ": still here\n\n"
        if runner.stopping:
            return
        await asyncio.sleep(LOOK_EVERY)
