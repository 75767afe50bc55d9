"""Entries of the audit log about identifications: collected in memory and written together, so that nobody
waits for the disk."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sphereid.gallery import audit
from sphereid.gallery.audit import AuditEntry, AuditLevel, Event, Head, Verdict
from sphereid.gallery.store.database import Database
from sphereid.gallery.types import Decision, Page
from sphereid.storage.errors import StorageError

log = logging.getLogger(__name__)

EVERY_S = 1.0
MOST = 10_000
"""Entries that may wait; who brings one more writes them first."""

BATCH = 25
"""Entries in one transaction: writes to galleries wait for it."""

PAUSE_S = 0.002
"""Between two of them: whoever waits to write gets in."""


class AuditWriter:
    """A thread that writes what was identified, once a second. A process that is killed loses the entries of
    the last second; `close` loses nothing. The disk is waited for once they are written, so that no write to
    a gallery waits with it, and only then the head is noted: it is never ahead of the log."""

    def __init__(self, database: Database, folder: Path, level: AuditLevel) -> None:
        database.engine.update_execution_options(sphereid_audit=level != "off")
        self._database = database
        self._folder = folder
        self._level = level
        self._waiting: list[Event] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._noted: Head | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gallery-audit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Write what is left. A second call does nothing."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def seen(
        self,
        action: str,
        gallery: str,
        decisions: Sequence[Decision],
        *,
        claimed: str | None = None,
        sustained: bool = False,
    ) -> None:
        """Note decisions on faces.

        claimed: whom a face was compared with. sustained: they belong to a scene that is looked at many times
        a second; then equal ones of a second become one entry, with their count and highest similarity.
        """
        if self._level != "all" or not decisions:
            return
        actor = audit.current_actor()
        events = [_event(action, gallery, decision, claimed, actor) for decision in decisions]
        with self._lock:
            if sustained:
                for event in events:
                    self._merge(event)
            else:
                self._waiting += events
            full = len(self._waiting) > MOST
        if full:
            self.flush()

    def listed(
        self,
        *,
        cursor: str | None = None,
        limit: int = 50,
        gallery: str | None = None,
        identity: str | None = None,
        action: str | None = None,
    ) -> Page[AuditEntry]:
        """The log, the newest entry first. action: one, or with a dot at the end all that begin so."""
        with self._database.reading() as tx:
            return audit.listed(
                tx, cursor=cursor, limit=limit, gallery=gallery, identity=identity, action=action
            )

    def verify(self, noted: Head | None = None) -> Verdict:
        """Compute the chain again and compare it with the head in `audit.head`, or one that was noted
        elsewhere."""
        return audit.verify(self._database, noted or audit.noted_head(self._folder))

    def flush(self) -> None:
        """Write what waits. Raises StorageError; then it waits on."""
        with self._writing:
            with self._lock:
                events, self._waiting = self._waiting, []
            done = 0
            try:
                while done < len(events):
                    if done:
                        time.sleep(PAUSE_S)
                    with self._database.writing(synced=False) as tx:
                        audit.record(tx, events[done : done + BATCH])
                    done += BATCH
            except BaseException:
                with self._lock:
                    self._waiting = events[done:] + self._waiting
                raise
            self._note()

    def _note(self) -> None:
        head = audit.head_of(self._database)
        if head == self._noted or not head.number:
            return
        self._database.sync()
        noted = audit.noted_head(self._folder)
        if noted is not None and not audit.holds(self._database, noted):
            if self._noted != noted:
                log.error("the audit log was cut off or written anew: run `sphereid audit verify`")
                self._noted = noted
            return  # what was noted is the evidence, and stays
        try:
            audit.note_head(self._folder, head)
        except OSError as error:
            raise StorageError(f"cannot write the head of the audit log: {error.strerror}") from error
        self._noted = head

    def _merge(self, event: Event) -> None:
        for i, other in enumerate(self._waiting):
            if (other.action, other.gallery, other.identity, other.actor) == (
                event.action,
                event.gallery,
                event.identity,
                event.actor,
            ) and other.details["decision"] == event.details["decision"]:
                highest = max(other.details, event.details, key=lambda d: d["similarity"] or -1.0)
                count = other.details.get("count", 1) + 1
                self._waiting[i] = replace(other, details={**highest, "count": count})
                return
        self._waiting.append(event)

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            try:
                self.flush()
            except Exception:
                log.exception("the audit log cannot be written, will try again")


def _event(action: str, gallery: str, decision: Decision, claimed: str | None, actor: audit.Actor) -> Event:
    details = {
        "decision": decision.outcome,
        "similarity": None if decision.similarity is None else round(decision.similarity, 6),
        "threshold": round(decision.threshold.value, 6),
    }
    identity = claimed if decision.identity is None else decision.identity.id
    return Event(action, gallery, identity, details, actor)
