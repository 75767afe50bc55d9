"""Delivers events to a webhook: one after another, each until it is taken or given up."""

import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from http.client import HTTPException
from typing import Any, Final

from app.monitors import signing
from app.monitors.types import Deliveries, Webhook

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 300.0
"""Seconds before an event is tried again: four times as long with each try, up to the longest."""
TRIES: Final = 8
"""After so many an event is given up: about a quarter of an hour of silence."""
MOST_WAITING: Final = 1000
"""Events that may wait; beyond them the oldest are given up."""
TIMEOUT: Final = 10.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pending:
    """An event on its way. id: the same for every try. tries: that have failed."""

    id: str
    body: str
    tries: int = 0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A webhook that is sent elsewhere might be sent into our own network."""
        return


class Deliverer:
    """The webhook of one monitor, in a thread of its own. `status` may be read from any thread."""

    def __init__(self, hook: Webhook, pending: Sequence[Pending] = ()) -> None:
        self._hook = hook
        self._queue = deque(pending)
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._status = Deliveries()
        self._opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> list[Pending]:
        """End; what was not delivered yet. A try that is under way may still arrive: receivers know an event
        that comes twice by its id."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT + 1)
        return list(self._queue)

    @property
    def status(self) -> Deliveries:
        with self._changed:
            return replace(self._status, waiting=len(self._queue))

    def put(self, delivery: str, body: Mapping[str, Any]) -> None:
        """Queue an event."""
        with self._changed:
            self._queue.append(Pending(delivery, json.dumps(body, ensure_ascii=False)))
            while len(self._queue) > MOST_WAITING:
                self._queue.popleft()
                self._count(dead=1, last_error="too many events were waiting")
            self._changed.notify_all()

    def _run(self) -> None:
        while not self._stopped.is_set():
            with self._changed:
                while not self._queue and not self._stopped.is_set():
                    self._changed.wait()
                if self._stopped.is_set():
                    return
                first = self._queue[0]
            error = self._send(first)
            with self._changed:
                waits = self._settle(first, error)
            if waits:
                self._stopped.wait(waits)

    def _settle(self, event: Pending, error: str | None) -> float:
        """Count a try; how long to wait before the next one."""
        mine = bool(self._queue) and self._queue[0].id == event.id  # else it was given up meanwhile
        if error is None:
            self._count(delivered=1)
            if mine:
                self._queue.popleft()
            return 0.0
        failed = replace(event, tries=event.tries + 1)
        if failed.tries >= TRIES:
            log.warning("a webhook did not take an event in %d tries: %s", TRIES, error)
            self._count(dead=1, last_error=error)
            if mine:
                self._queue.popleft()
            return 0.0
        self._count(retries=1, last_error=error)
        if mine:
            self._queue[0] = failed
        return float(min(FIRST_WAIT * 4**event.tries, LONGEST_WAIT))

    def _send(self, event: Pending) -> str | None:
        """Try once; None where the receiver took it, else why not."""
        body = event.body.encode()
        signed = signing.headers(self._hook.secret, event.id, int(time.time()), body)
        request = urllib.request.Request(
            self._hook.url,
            data=body,
            method="POST",
            headers={"Content-Type": "application/json", "User-Agent": "SphereID", **signed},
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return None if 200 <= answer.status < 300 else f"it answered {answer.status}"
        except urllib.error.HTTPError as error:
            with error:
                return f"it answered {error.code}"
        except (OSError, HTTPException, ValueError) as error:
            return f"it could not be reached ({type(getattr(error, 'reason', None) or error).__name__})"

    def _count(self, *, last_error: str | None = None, **more: int) -> None:
        counted = {name: getattr(self._status, name) + count for name, count in more.items()}
        self._status = replace(self._status, **counted, last_error=last_error or self._status.last_error)


def packed(pending: list[Pending]) -> list[dict[str, Any]]:
    """As JSON keeps it."""
    return [asdict(each) for each in pending]
