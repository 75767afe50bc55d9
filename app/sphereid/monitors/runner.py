"""Runs the monitors: a thread a source, and one a webhook. They go on after a restart of the service."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sphereid.gallery.errors import GalleryError
from sphereid.gallery.validation import new_id
from sphereid.monitors import signing
from sphereid.monitors.allowed import Allowed
from sphereid.monitors.errors import MonitorError
from sphereid.monitors.store import MonitorStore
from sphereid.monitors.types import Monitor, State, Status, Told, Webhook
from sphereid.monitors.webhook import Deliverer
from sphereid.storage.errors import StorageError
from sphereid.video.errors import VideoError
from sphereid.video.presence import Event
from sphereid.video.watch import Session, event_json, watch

KEPT: Final = 256
"""Newest events of a monitor that are kept for watchers who come late or again."""
log = logging.getLogger(__name__)

Opener = Callable[[Monitor], Session]
"""Opens what decides the frames of a monitor. Raises GalleryError."""


@dataclass(slots=True, eq=False)
class _Watch:
    """A monitor while the service runs. Its members change under `lock`."""

    monitor: Monitor
    deliverer: Deliverer | None
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    thread: threading.Thread | None = None
    state: State = "connecting"
    frames: int = 0
    reconnects: int = 0
    last_frame_at: datetime | None = None
    detail: str | None = None
    told: deque[Told] = field(default_factory=lambda: deque(maxlen=KEPT))
    count: int = 0

    def status(self) -> Status:
        with self.lock:
            deliveries = None if self.deliverer is None else self.deliverer.status
            return Status(
                self.state,
                self.frames,
                self.count,
                self.reconnects,
                self.last_frame_at,
                self.detail,
                deliveries,
            )


class MonitorRunner:
    """The monitors of a service. Thread-safe; one a folder."""

    def __init__(self, root: Path, opener: Opener, allowed: Allowed, *, most: int = 8) -> None:
        """root: their folder. most: monitors that may be there at the same time."""
        self._store = MonitorStore(root)
        self._open = opener
        self._allowed = allowed
        self._most = most
        self._watches: dict[str, _Watch] = {}
        self._lock = threading.Lock()
        self._stopping = False

    def start(self) -> None:
        """Go on with the monitors of earlier. One that the settings do not allow any more says so."""
        for monitor in self._store.load():
            with self._lock:
                self._begin(monitor)

    def stop(self) -> None:
        """End all; events that wait for a webhook are delivered after the next start."""
        self._stopping = True
        with self._lock:
            watches = list(self._watches.values())
        for watched in watches:
            watched.stopped.set()
        for watched in watches:
            self._end(watched)

    @property
    def stopping(self) -> bool:
        """True once `stop` was called."""
        return self._stopping

    @property
    def running(self) -> int:
        """Monitors that are connected now."""
        with self._lock:
            return sum(watched.state == "running" for watched in self._watches.values())

    def create(
        self,
        *,
        id: str | None,
        name: str,
        source: str,
        gallery: str,
        strangers: bool,
        rate: float,
        min_face: int | None,
        min_score: float | None,
        webhook: str | None,
    ) -> Monitor:
        """A new monitor, watching from now on; the secret of its webhook is made here.

        Raises MonitorError, and GalleryError where the gallery cannot be searched.
        """
        self._allowed.check_source(source)
        if webhook is not None:
            self._allowed.check_webhook(webhook)
        monitor = Monitor(
            id or new_id(),
            name,
            source,
            gallery,
            datetime.now(UTC),
            strangers,
            rate,
            min_face,
            min_score,
            None if webhook is None else Webhook(webhook, signing.new_secret()),
        )
        self._open(monitor)  # a wrong gallery is told now
        with self._lock:
            if monitor.id in self._watches:
                raise MonitorError("monitor_exists", f"monitor {monitor.id!r} exists already")
            if len(self._watches) >= self._most:
                raise MonitorError(
                    "too_many_monitors",
                    f"there are {len(self._watches)} monitors, and no more are allowed: delete one, or raise "
                    "SPHEREID_MONITORS__MOST",
                )
            self._store.save(monitor)
            self._begin(monitor)
        return monitor

    def list(self) -> Sequence[Monitor]:
        """Oldest first."""
        with self._lock:
            return [watched.monitor for watched in self._watches.values()]

    def get(self, monitor_id: str) -> Monitor:
        """MonitorError `monitor_not_found`, here and wherever a monitor is named."""
        return self._find(monitor_id).monitor

    def status(self, monitor_id: str) -> Status:
        """How it fares."""
        return self._find(monitor_id).status()

    def told(self, monitor_id: str, after: int) -> Sequence[Told]:
        """The events after a number, as far as they are kept."""
        watched = self._find(monitor_id)
        with watched.lock:
            return [each for each in watched.told if each.number > after]

    def delete(self, monitor_id: str) -> None:
        """Stop it and forget it, with the events that its webhook did not take."""
        watched = self._find(monitor_id)
        watched.stopped.set()
        self._end(watched)
        with self._lock:
            if self._watches.get(monitor_id) is watched:
                del self._watches[monitor_id]
                self._store.delete(monitor_id)

    def _find(self, monitor_id: str) -> _Watch:
        with self._lock:
            watched = self._watches.get(monitor_id)
        if watched is None:
            raise MonitorError("monitor_not_found", f"there is no monitor {monitor_id!r}")
        return watched

    def _begin(self, monitor: Monitor) -> None:
        hook = monitor.webhook
        deliverer = None if hook is None else Deliverer(hook, self._store.outbox(monitor.id))
        watched = _Watch(monitor, deliverer)
        self._watches[monitor.id] = watched
        try:
            if hook is not None:
                self._allowed.check_webhook(hook.url)
            self._allowed.check_source(monitor.source)
        except MonitorError as error:  # the settings became stricter
            watched.state, watched.detail = "failed", str(error)
            return
        if deliverer is not None:
            deliverer.start()
        if monitor.over:
            watched.state = "ended"
            return
        watched.thread = threading.Thread(
            target=self._work, args=(watched,), name=f"monitor-{monitor.id}", daemon=True
        )
        watched.thread.start()

    def _end(self, watched: _Watch) -> None:
        if watched.thread is not None:
            watched.thread.join(15)
        if watched.deliverer is not None:
            watched.deliverer.stop()

    def _work(self, watched: _Watch) -> None:
        monitor = watched.monitor

        def note(line: str) -> None:
            with watched.lock:
                if line.startswith("connected"):
                    watched.reconnects += 1
                    watched.state, watched.detail = "running", None
                else:
                    watched.state, watched.detail = "reconnecting", line

        try:
            session = self._open(monitor)
            for events in watch(monitor.source, session, watched.stopped, note, rate=monitor.rate):
                with watched.lock:
                    if watched.state == "connecting":  # later ones may be of a connection that is gone
                        watched.state = "running"
                    watched.frames += 1
                    watched.last_frame_at = datetime.now(UTC)
                for event in events:
                    self._tell(watched, event)
        except (VideoError, GalleryError, StorageError) as error:
            self._settle(watched, "failed", str(error))
        except Exception:
            log.exception("monitor %s failed", monitor.id)
            self._settle(watched, "failed", "something went wrong here; the log has it under this monitor")
        else:
            if not watched.stopped.is_set():
                self._settle(watched, "ended", None)
                watched.monitor = replace(monitor, over=True)
                with self._lock:
                    if self._watches.get(monitor.id) is watched:
                        self._store.save(watched.monitor)

    def _settle(self, watched: _Watch, state: State, detail: str | None) -> None:
        with watched.lock:
            watched.state, watched.detail = state, detail

    def _tell(self, watched: _Watch, event: Event) -> None:
        monitor = watched.monitor
        if event.identity is None and not monitor.strangers:
            return
        body = {
            "type": f"person.{event.kind}",
            "monitor": {"id": monitor.id, "name": monitor.name},
            "gallery": monitor.gallery,
            **event_json(event, datetime.now(UTC)),
        }
        with watched.lock:
            watched.count += 1
            watched.told.append(Told(watched.count, body))
        if watched.deliverer is not None:
            watched.deliverer.put(f"msg_{new_id()}", body)
