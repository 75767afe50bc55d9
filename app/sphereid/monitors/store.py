"""Monitors on disk: a file each, and one with what its webhook has not taken yet. Nobody else can read them,
for they may hold a camera's password."""

import json
import logging
import os
import sqlite3
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from sphereid.monitors.outbox import Outbox
from sphereid.monitors.types import Monitor, Webhook

log = logging.getLogger(__name__)


class MonitorStore:
    """A write is whole or not there, whenever the process dies."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def load(self) -> list[Monitor]:
        """Every monitor, oldest first. Removes outboxes whose monitor is gone: unfinished deletes."""
        found = []
        for path in sorted(self._root.glob("*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                found.append(_monitor(record))
            except (OSError, ValueError, TypeError, KeyError):
                log.warning("monitor %s has an unreadable record and is left alone", path.stem)
        for outbox in self._root.glob("*.outbox"):
            if not outbox.with_suffix(".json").exists():
                outbox.unlink()
        return sorted(found, key=lambda each: (each.created_at, each.id))

    def save(self, monitor: Monitor) -> None:
        """On return it survives a power cut."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        record = asdict(monitor) | {"created_at": monitor.created_at.isoformat()}
        path = self._path(monitor.id)
        temporary = path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def outbox(self, monitor_id: str) -> Outbox:
        """The events that wait for the webhook of a saved monitor."""
        path = self._path(monitor_id).with_suffix(".outbox")
        try:
            return Outbox(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            log.warning("the outbox of monitor %s is damaged: it is set aside, a new one begun", monitor_id)
            path.replace(path.with_suffix(".outbox-damaged"))
            return Outbox(path)

    def delete(self, monitor_id: str) -> None:
        """Remove a monitor with its outbox, which must be closed."""
        path = self._path(monitor_id)
        for suffix in (".json", ".outbox", ".outbox-journal", ".outbox-damaged"):
            path.with_suffix(suffix).unlink(missing_ok=True)

    def _path(self, monitor_id: str) -> Path:
        return self._root / f"{monitor_id}.json"


def _monitor(record: dict[str, Any]) -> Monitor:
    known = {field.name for field in fields(Monitor)}
    hook = record.get("webhook")
    return Monitor(
        **{name: value for name, value in record.items() if name in known - {"created_at", "webhook"}},
        created_at=datetime.fromisoformat(record["created_at"]),
        webhook=None if hook is None else Webhook(**hook),
    )
