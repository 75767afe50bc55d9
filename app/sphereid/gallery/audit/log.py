"""Who did what and when: a log whose entries hang together by hashes, so that a changed one shows.

Entry n carries SHA-256(hash of entry n-1, a newline, the entry as canonical JSON); before the first one stand
64 zeros. The head (number and hash of the last entry) is kept in a table of its own and, a little later, in
the file `audit.head`: entries cut off the end show against it. Whoever may write to database and file can
write the whole chain anew; only a head that was noted elsewhere shows that.

The log holds ids, similarities and thresholds, never an embedding or a picture, and no names or metadata.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Select, bindparam, insert, select, update

from sphereid.gallery.errors import InvalidRequestError
from sphereid.gallery.store import now
from sphereid.gallery.store.database import Database
from sphereid.gallery.store.tables import AUDIT, AUDIT_HEAD
from sphereid.gallery.types import Page

AuditLevel = Literal["all", "writes", "off"]

START = "0" * 64
CHUNK = 5000
HEAD_FILE = "audit.head"


# Built once: every write appends.
_HEAD = select(AUDIT_HEAD.c.number, AUDIT_HEAD.c.hash).with_for_update()
_APPEND = insert(AUDIT)
_MOVE_HEAD = update(AUDIT_HEAD).values(number=bindparam("last"), hash=bindparam("digest"))


@dataclass(frozen=True, slots=True)
class Actor:
    """On whose behalf the service works. name: `key:` and the first digits of the API key's digest,
    `cli:` and the system's user, `job:` and an id, `anonymous`, or `service` for itself."""

    name: str = "service"
    request_id: str | None = None


_ACTOR: ContextVar[Actor] = ContextVar("actor")


def current_actor() -> Actor:
    """Whoever `acting` named; worker threads of a request inherit it."""
    return _ACTOR.get(Actor())


@contextmanager
def acting(name: str, request_id: str | None = None) -> Iterator[None]:
    """What is done inside is done by this actor."""
    token = _ACTOR.set(Actor(name, request_id))
    try:
        yield
    finally:
        _ACTOR.reset(token)


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth an entry. action: such as `identity.delete`. details: JSON, without personal data
    beyond ids."""

    action: str
    gallery: str | None = None
    identity: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    actor: Actor = field(default_factory=current_actor)
    at: str = field(default_factory=lambda: now().isoformat(timespec="milliseconds"))


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry of the log. number: from 1, without gaps. at: UTC, ISO 8601. hash: 64 hexadecimal digits."""

    number: int
    at: str
    actor: str
    request_id: str | None
    action: str
    gallery: str | None
    identity: str | None
    details: Mapping[str, Any]
    hash: str

    def expected_hash(self, before: str) -> str:
        """What `hash` has to be after an entry with the hash `before`."""
        said = {
            "number": self.number,
            "at": self.at,
            "actor": self.actor,
            "request_id": self.request_id,
            "action": self.action,
            "gallery": self.gallery,
            "identity": self.identity,
            "details": dict(self.details),
        }
        text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a chain; number 0 before the first. As text `12:af…`."""

    number: int = 0
    hash: str = START

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> "Head":
        """Raises InvalidRequestError."""
        number, _, digest = text.strip().partition(":")
        if not number.isdigit() or len(digest) != 64:
            raise InvalidRequestError("a head is NUMBER:HASH, as `sphereid audit verify` prints it")
        return cls(int(number), digest)


@dataclass(frozen=True, slots=True)
class Verdict:
    """head: of the chain as far as it holds. fault: what is wrong, None where nothing is. noted: whether
    there was a head outside of the database to compare with."""

    head: Head
    fault: str | None
    noted: bool


def record(tx: Connection, events: Sequence[Event]) -> None:
    """Append to the log in the caller's transaction; nothing where the log is off."""
    if not events or not tx.get_execution_options().get("sphereid_audit", True):
        return
    head = _head(tx)
    rows: list[dict[str, Any]] = []
    number, digest = head.number, head.hash
    for event in events:
        number += 1
        said = (
            number,
            event.at,
            event.actor.name,
            event.actor.request_id,
            event.action,
            event.gallery,
            event.identity,
            dict(event.details),
        )
        digest = AuditEntry(*said, hash="").expected_hash(digest)
        rows.append(dict(zip((c.name for c in AUDIT.c), (*said, digest), strict=True)))
    tx.execute(_APPEND, rows)
    if head.number:
        tx.execute(_MOVE_HEAD, {"last": number, "digest": digest})
    else:
        tx.execute(insert(AUDIT_HEAD).values(id=1, number=number, hash=digest))


def listed(
    tx: Connection,
    *,
    cursor: str | None = None,
    limit: int = 50,
    gallery: str | None = None,
    identity: str | None = None,
    action: str | None = None,
) -> Page[AuditEntry]:
    """The newest entries first. action: one, or with a dot at the end all that begin so."""
    query: Select[Any] = select(AUDIT).order_by(AUDIT.c.number.desc()).limit(limit + 1)
    if cursor is not None:
        if not cursor.isdigit() or len(cursor) > 18:
            raise InvalidRequestError("this cursor is none that a list gave; start without one")
        query = query.where(AUDIT.c.number < int(cursor))
    if gallery is not None:
        query = query.where(AUDIT.c.gallery == gallery)
    if identity is not None:
        query = query.where(AUDIT.c.identity == identity)
    if action is not None:
        whole = not action.endswith(".")
        query = query.where(AUDIT.c.action == action if whole else AUDIT.c.action.startswith(action))
    entries = [AuditEntry(*row) for row in tx.execute(query)]
    more = len(entries) > limit
    return Page(tuple(entries[:limit]), str(entries[limit - 1].number) if more else None)


def verify(database: Database, noted: Head | None) -> Verdict:
    """Compute the whole chain again. noted: a head that was kept outside of the database, which the chain
    must hold."""
    head = Head()
    found = noted is None or noted == head
    while True:
        with database.reading() as tx:
            query = select(AUDIT).where(AUDIT.c.number > head.number).order_by(AUDIT.c.number).limit(CHUNK)
            entries = [AuditEntry(*row) for row in tx.execute(query)]
            end = _head(tx) if len(entries) < CHUNK else None
        for entry in entries:
            if entry.number != head.number + 1:
                return Verdict(head, f"entries {head.number + 1} to {entry.number - 1} are missing", False)
            if entry.expected_hash(head.hash) != entry.hash:
                return Verdict(head, f"entry {entry.number} was changed, or the one before it", False)
            head = Head(entry.number, entry.hash)
            found = found or head == noted
        if end is not None:
            break
    if end != head:
        return Verdict(head, f"the log ends at entry {head.number}, the head says {end.number}", False)
    if noted is not None and not found:
        what = "was written anew" if noted.number <= head.number else "was cut off"
        return Verdict(head, f"the log {what}: entry {noted.number} is not the one that was noted", True)
    return Verdict(head, None, noted is not None)


def holds(database: Database, head: Head) -> bool:
    """Whether the log has this entry, by its number and its hash."""
    with database.reading() as tx:
        found = tx.execute(select(AUDIT.c.hash).where(AUDIT.c.number == head.number)).scalar()
    return found == head.hash or not head.number


def head_of(database: Database) -> Head:
    """Number and hash of the last entry."""
    with database.reading() as tx:
        return _head(tx)


def noted_head(folder: Path) -> Head | None:
    """What `audit.head` says; None where there is no such file."""
    try:
        return Head.parse((folder / HEAD_FILE).read_text())
    except FileNotFoundError:
        return None


def note_head(folder: Path, head: Head) -> None:
    """Write `audit.head`, whole or not at all."""
    part = folder / (HEAD_FILE + ".part")
    part.write_text(f"{head}\n")
    part.replace(folder / HEAD_FILE)


def _head(tx: Connection) -> Head:
    row = tx.execute(_HEAD).first()
    return Head() if row is None else Head(row.number, row.hash)
