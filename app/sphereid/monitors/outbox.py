"""Events on their way to a webhook, on disk from the moment they happen until they are taken or given up."""

import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL, at REAL NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0
)"""


@dataclass(frozen=True, slots=True)
class Pending:
    """An event on its way. id: the same for every try, also after a restart. at: when it happened; due: when
    it may be tried next (both seconds since 1970). tries: that have failed."""

    id: str
    body: str
    at: float
    tries: int
    due: float


class Outbox:
    """The waiting events of one webhook, oldest first, in an SQLite file that nobody else can read.

    What a method did survives a power cut, and what it removed is wiped from the file. Use it from one thread
    at a time. Methods raise sqlite3.Error where the disk fails.
    """

    def __init__(self, path: Path) -> None:
        """Goes on with the file at `path`, or begins it."""
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._file.execute("PRAGMA synchronous = FULL")
        self._file.execute("PRAGMA secure_delete = ON")
        self._file.execute(_TABLE)

    def close(self) -> None:
        """Idempotent."""
        self._file.close()

    def __len__(self) -> int:
        return int(self._file.execute("SELECT count(*) FROM events").fetchone()[0])

    def add(self, event_id: str, body: str) -> None:
        """Put an event behind all others."""
        self._file.execute(
            "INSERT INTO events (id, body, at) VALUES (?, ?, ?)", (event_id, body, time.time())
        )

    def first(self) -> Pending | None:
        """The oldest event."""
        query = "SELECT id, body, at, tries, due FROM events ORDER BY number LIMIT 1"
        row = self._file.execute(query).fetchone()
        return None if row is None else Pending(*row)

    def failed(self, event_id: str, due: float) -> None:
        """Count a try that failed. due: when the next may come, seconds since 1970."""
        self._file.execute("UPDATE events SET tries = tries + 1, due = ? WHERE id = ?", (due, event_id))

    def remove(self, event_id: str) -> bool:
        """Forget an event; whether it was there."""
        return self._file.execute("DELETE FROM events WHERE id = ?", (event_id,)).rowcount > 0

    def drop(self, *, before: float, most: int) -> int:
        """Forget what happened before a time (seconds since 1970), and the oldest beyond so many; says how
        many went."""
        gone = self._file.execute("DELETE FROM events WHERE at < ?", (before,)).rowcount
        newest = "SELECT number FROM events ORDER BY number DESC LIMIT ?"
        gone += self._file.execute(f"DELETE FROM events WHERE number NOT IN ({newest})", (most,)).rowcount
        return gone
