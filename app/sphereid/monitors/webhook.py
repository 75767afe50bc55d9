"""Delivers events to a webhook: one after another, each at least once, until it is taken or given up."""

import json
import logging
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import Any, Final

from sphereid.monitors import signing
from sphereid.monitors.outbox import Outbox, Pending
from sphereid.monitors.types import Deliveries, Webhook

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 300.0
"""Seconds before an event is tried again: four times as long with each try, up to the longest."""
OLDEST: Final = 86_400.0
"""Seconds after which an event is given up that nobody took."""
REFUSALS: Final = 8
"""Tries after which an event is given up that the receiver answers with 4xx: it will never take this one."""
MOST_WAITING: Final = 1000
"""Events that may wait; beyond them the oldest are given up."""
TIMEOUT: Final = 10.0
_BUSY: Final = frozenset({408, 425, 429})
"""Answers 4xx that mean: not now."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a try failed. refused: the receiver is there and does not want this event."""

    reason: str
    refused: bool = False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A webhook that is sent elsewhere might be sent into our own network."""
        return


class Deliverer:
    """The webhook of one monitor, in a thread of its own. `status` may be read from any thread.

    Events are in the outbox before `put` returns: a process that is killed delivers them after its next
    start, with the ids that they had. One whose answer it did not live to see arrives twice.
    """

    def __init__(self, hook: Webhook, outbox: Outbox) -> None:
        self._hook = hook
        self._outbox = outbox
        self._changed = threading.Condition()
        """Guards the outbox and the status."""
        self._stopped = threading.Event()
        self._status = Deliveries(waiting=len(outbox))
        self._opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End; what was not delivered yet stays in the outbox. A try that is under way may still arrive:
        receivers know an event that comes twice by its id."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT + 1)
        with self._changed:
            self._outbox.close()

    @property
    def status(self) -> Deliveries:
        with self._changed:
            return self._status

    def put(self, delivery: str, body: Mapping[str, Any]) -> None:
        """Queue an event; on return it survives the end of this process."""
        with self._changed:
            try:
                self._outbox.add(delivery, json.dumps(body, ensure_ascii=False))
                self._tidy()
            except sqlite3.Error as error:
                log.warning("an event for a webhook could not be kept: %s", error)
                self._count(dead=1, last_error="the event could not be kept: the disk failed or is full")
            self._changed.notify_all()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._changed:
                    first = self._next()
                if first is not None:
                    fault = self._send(first)
                    with self._changed:
                        self._settle(first, fault)
            except sqlite3.Error as error:
                log.warning("the events that wait for a webhook cannot be read: %s", error)
                self._stopped.wait(LONGEST_WAIT)

    def _next(self) -> Pending | None:
        """Wait for an event that is due; None when there may be one now."""
        self._tidy()
        first = self._outbox.first()
        rest = None if first is None else min(first.due - time.time(), LONGEST_WAIT)
        if self._stopped.is_set() or (rest is not None and rest <= 0):
            return None if self._stopped.is_set() else first
        self._changed.wait(rest)
        return None

    def _settle(self, event: Pending, fault: Fault | None) -> None:
        """Count a try, and say when the next one comes."""
        if fault is None:
            self._outbox.remove(event.id)
            self._count(delivered=1)
        elif fault.refused and event.tries + 1 >= REFUSALS:
            log.warning("a webhook refused an event %d times: %s", REFUSALS, fault.reason)
            self._count(dead=self._outbox.remove(event.id), last_error=fault.reason)
        else:
            wait = min(FIRST_WAIT * 4 ** min(event.tries, 20), LONGEST_WAIT)
            self._outbox.failed(event.id, time.time() + wait)
            self._count(retries=1, last_error=fault.reason)
        self._recount()

    def _tidy(self) -> None:
        """Give up what is too old or too much."""
        if gone := self._outbox.drop(before=time.time() - OLDEST, most=MOST_WAITING):
            log.warning("%d events for a webhook were given up: too old, or too many waited", gone)
            reason = "events were given up: nobody took them in time, or too many waited"
            self._count(dead=gone, last_error=reason)
        self._recount()

    def _send(self, event: Pending) -> Fault | None:
        """Try once; None where the receiver took it."""
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
                return None if 200 <= answer.status < 300 else Fault(f"it answered {answer.status}")
        except urllib.error.HTTPError as error:
            with error:
                refused = 400 <= error.code < 500 and error.code not in _BUSY
                return Fault(f"it answered {error.code}", refused)
        except (OSError, HTTPException, ValueError) as error:
            kind = type(getattr(error, "reason", None) or error).__name__
            return Fault(f"it could not be reached ({kind})")

    def _count(self, *, last_error: str | None = None, **more: int) -> None:
        counted = {name: getattr(self._status, name) + count for name, count in more.items()}
        self._status = replace(self._status, **counted, last_error=last_error or self._status.last_error)

    def _recount(self) -> None:
        self._status = replace(self._status, waiting=len(self._outbox))
