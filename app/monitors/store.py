"""Monitors on disk: one file each, readable by nobody else, for it may hold a camera's password."""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from app.monitors.types import Monitor, Webhook
from app.monitors.webhook import Pending, packed

log = logging.getLogger(__name__)


class MonitorStore:
    """A write is whole or not there, whenever the process dies."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def load(self) -> list[tuple[Monitor, list[Pending]]]:
        """Every monitor with the events that its webhook did not take yet, oldest first."""
        found = []
        for path in sorted(self._root.glob("*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                pending = [Pending(**each) for each in record.pop("pending")]
                found.append((_monitor(record), pending))
            except (OSError, ValueError, TypeError, KeyError):
                log.warning("monitor %s has an unreadable record and is left alone", path.stem)
        return sorted(found, key=lambda each: (each[0].created_at, each[0].id))

    def save(self, monitor: Monitor, pending: Sequence[Pending] = ()) -> None:
        """On return it survives a power cut."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        record = asdict(monitor) | {
            "created_at": monitor.created_at.isoformat(),
            "pending": packed(list(pending)),
        }
        path = self._path(monitor.id)
        temporary = path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def delete(self, monitor_id: str) -> None:
        self._path(monitor_id).unlink(missing_ok=True)

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
