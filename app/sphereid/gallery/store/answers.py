"""Answers to writes that carried an Idempotency-Key, so that a repeated write is answered and not done
again."""

from datetime import timedelta

from sqlalchemy import Connection, delete, insert, select, update

from sphereid.gallery.errors import ConflictError
from sphereid.gallery.store import now
from sphereid.gallery.store.tables import ANSWERS
from sphereid.gallery.types import StoredAnswer

KEPT_FOR = timedelta(days=1)


def recall(tx: Connection, key: str, fingerprint: str) -> StoredAnswer | None:
    query = select(ANSWERS).where(ANSWERS.c.key == key, ANSWERS.c.created_at > now() - KEPT_FOR)
    row = tx.execute(query).first()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise _conflict()
    return StoredAnswer(row.status, row.body)


def remember(tx: Connection, key: str, fingerprint: str, answer: StoredAnswer) -> None:
    """Keep an answer; the same request's earlier one is replaced."""
    at = now()
    tx.execute(delete(ANSWERS).where(ANSWERS.c.created_at <= at - KEPT_FOR))
    found = tx.execute(select(ANSWERS.c.fingerprint).where(ANSWERS.c.key == key)).scalar()
    values = {"status": answer.status, "body": answer.body, "created_at": at}
    if found is None:
        tx.execute(insert(ANSWERS).values(key=key, fingerprint=fingerprint, **values))
    elif found == fingerprint:
        tx.execute(update(ANSWERS).where(ANSWERS.c.key == key).values(values))
    else:
        raise _conflict()


def _conflict() -> ConflictError:
    return ConflictError(
        "idempotency_conflict", "this Idempotency-Key came with another request before; use a new key"
    )
