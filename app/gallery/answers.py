"""Answers to writes that carried an Idempotency-Key, so that a repeated write is answered and not done
again."""

from datetime import timedelta

from sqlalchemy import Connection, delete, insert, select

from app.gallery.errors import ConflictError
from app.gallery.models import ANSWERS
from app.gallery.store import now
from app.gallery.types import StoredAnswer

KEPT_FOR = timedelta(days=1)


def recall(tx: Connection, key: str, fingerprint: str) -> StoredAnswer | None:
    query = select(ANSWERS).where(ANSWERS.c.key == key, ANSWERS.c.created_at > now() - KEPT_FOR)
    row = tx.execute(query).first()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise ConflictError(
            "idempotency_conflict", "this Idempotency-Key came with another request before; use a new key"
        )
    return StoredAnswer(row.status, row.body)


def remember(tx: Connection, key: str, fingerprint: str, status: int, body: bytes) -> None:
    at = now()
    tx.execute(delete(ANSWERS).where(ANSWERS.c.created_at <= at - KEPT_FOR))
    if tx.execute(select(ANSWERS.c.key).where(ANSWERS.c.key == key)).first() is None:
        tx.execute(
            insert(ANSWERS).values(key=key, fingerprint=fingerprint, status=status, body=body, created_at=at)
        )
