"""What the other modules share: numbered things, batches of values, pages of rows."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select

from sphereid.gallery.errors import InvalidRequestError
from sphereid.gallery.index.ports import Keys
from sphereid.gallery.types import Page

BATCH = 500
"""Values in one IN (...): SQLite and PostgreSQL both take it."""


def now() -> datetime:
    return datetime.now(UTC)


def numbers(tx: Connection, query: Select[Any]) -> Keys:
    return np.array(tx.execute(query).scalars().all(), dtype=np.int64)


def batches(values: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), BATCH):
        yield list(values[start : start + BATCH])


def page(tx: Connection, query: Select[Any], limit: int, read: Any) -> Page[Any]:
    rows = [read(row) for row in tx.execute(query.limit(limit + 1))]
    more = len(rows) > limit
    cursor = base64.urlsafe_b64encode(rows[limit - 1][0].encode()).decode() if more else None
    return Page(tuple(item for _, item in rows[:limit]), cursor)


def after(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor.encode()).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError("this cursor is none that a list gave; start without one") from error


def after_number(cursor: str) -> int:
    try:
        return int(after(cursor))
    except ValueError as error:
        raise InvalidRequestError("this cursor is none that a list gave; start without one") from error
