"""The people of a gallery."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Row,
    Text,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy import cast as cast_sql

from sphereid.gallery.errors import NotFoundError
from sphereid.gallery.index.ports import Keys
from sphereid.gallery.store.rows import after_number, batches, now, numbers, page
from sphereid.gallery.store.tables import FACES, IDENTITIES, ORDINAL_BITS
from sphereid.gallery.types import Identity, MetadataFilter, Page

# What identifications and writes ask for, built once: building a statement takes longer than running it.
_IDENTITIES_BY_ID = select(IDENTITIES).where(
    IDENTITIES.c.gallery_id == bindparam("gallery"), IDENTITIES.c.id.in_(bindparam("ids", expanding=True))
)
_IDENTITY = select(IDENTITIES).where(
    IDENTITIES.c.gallery_id == bindparam("gallery"), IDENTITIES.c.id == bindparam("identity")
)
_INSERT = insert(IDENTITIES).returning(*IDENTITIES.c)
_TICK = (
    update(IDENTITIES)
    .where(IDENTITIES.c.number == bindparam("identity"))
    .values(
        faces=IDENTITIES.c.faces + bindparam("more_faces"),
        ticks=IDENTITIES.c.ticks + bindparam("more_ticks"),
        updated_at=bindparam("at"),
    )
)


@dataclass(frozen=True, slots=True)
class NumberedIdentity:
    """An identity with what only the gallery's inside knows: its number and the count of changes to its
    faces."""

    number: int
    ticks: int
    identity: Identity

    @property
    def template_key(self) -> int:
        return self.number << ORDINAL_BITS | self.ticks


def insert_identity(
    tx: Connection, gallery_id: str, identity_id: str, name: str, metadata: Mapping[str, Any]
) -> NumberedIdentity:
    """One that `find_identity` didn't find."""
    at = now()
    values = {"gallery_id": gallery_id, "id": identity_id, "name": name, "metadata": dict(metadata)}
    counts = {"faces": 0, "ticks": 0, "created_at": at, "updated_at": at}
    return _numbered(tx.execute(_INSERT, values | counts).one())


def find_identity(tx: Connection, gallery_id: str, identity_id: str) -> NumberedIdentity | None:
    row = tx.execute(_IDENTITY, {"gallery": gallery_id, "identity": identity_id}).first()
    return None if row is None else _numbered(row)


def get_identity(tx: Connection, gallery_id: str, identity_id: str) -> NumberedIdentity:
    found = find_identity(tx, gallery_id, identity_id)
    if found is None:
        raise NotFoundError(
            "identity_not_found", f"there is no identity {identity_id!r} in gallery {gallery_id!r}"
        )
    return found


def get_identities(tx: Connection, gallery_id: str, ids: Sequence[str]) -> dict[str, Identity]:
    found: dict[str, Identity] = {}
    for some in batches(ids):
        rows = tx.execute(_IDENTITIES_BY_ID, {"gallery": gallery_id, "ids": some})
        found |= {row.id: identity_of(row) for row in rows}
    return found


def list_identities(
    tx: Connection,
    gallery_id: str,
    cursor: str | None,
    limit: int,
    name: str | None,
    where: MetadataFilter,
) -> Page[Identity]:
    """In the order of their creation; `name` keeps those that contain it, in any case of letters."""
    query = select(IDENTITIES).where(IDENTITIES.c.gallery_id == gallery_id).order_by(IDENTITIES.c.number)
    if cursor is not None:
        query = query.where(IDENTITIES.c.number > after_number(cursor))
    if name is not None:
        query = query.where(IDENTITIES.c.name.icontains(name, autoescape=True))
    query = query.where(*_having(tx, where))
    return page(tx, query, limit, lambda row: (str(row.number), identity_of(row)))


def identities_having(tx: Connection, gallery_id: str, where: MetadataFilter) -> tuple[Keys, int]:
    """Those with faces whose metadata fits: numbers (I,), rising, and how many faces they have together."""
    query = select(IDENTITIES.c.number, IDENTITIES.c.faces).where(
        IDENTITIES.c.gallery_id == gallery_id, IDENTITIES.c.faces > 0, *_having(tx, where)
    )
    rows = tx.execute(query.order_by(IDENTITIES.c.number)).all()
    return np.array([row.number for row in rows], np.int64), sum(row.faces for row in rows)


def _having(tx: Connection, where: MetadataFilter) -> list[ColumnElement[bool]]:
    """Conditions on identities: members of `metadata`, compared as text."""
    conditions = []
    for key, value in where.items():
        if tx.dialect.name == "sqlite":
            path = f'$."{key}"'
            extracted = cast_sql(func.json_extract(IDENTITIES.c.metadata, path), Text)
            kind = func.json_type(IDENTITIES.c.metadata, path)  # booleans would come as 1 and 0
            text = case((kind.in_(["true", "false"]), kind), else_=extracted)
        else:
            text = IDENTITIES.c.metadata[key].as_string()
        conditions.append(text == value)
    return conditions


def set_identity(tx: Connection, number: int, name: str, metadata: Mapping[str, Any]) -> None:
    values = {"name": name, "metadata": dict(metadata), "updated_at": now()}
    tx.execute(update(IDENTITIES).where(IDENTITIES.c.number == number).values(values))


def delete_identity(tx: Connection, number: int) -> int:
    """Returns how many faces went with it."""
    gone = cast("CursorResult[Any]", tx.execute(delete(FACES).where(FACES.c.identity_number == number)))
    tx.execute(delete(IDENTITIES).where(IDENTITIES.c.number == number))
    return gone.rowcount


def template_keys(tx: Connection, gallery_id: str) -> Keys:
    """(I,) int64: the key of the mean of every identity that has faces. It changes with each change to
    them."""
    i = IDENTITIES.c
    return numbers(
        tx, select(i.number * (1 << ORDINAL_BITS) + i.ticks).where(i.gallery_id == gallery_id, i.faces > 0)
    )


def tick(tx: Connection, number: int, *, faces: int, ticks: int) -> None:
    """Count changes to the faces of an identity."""
    tx.execute(_TICK, {"identity": number, "more_faces": faces, "more_ticks": ticks, "at": now()})


def _numbered(row: Row[Any]) -> NumberedIdentity:
    return NumberedIdentity(row.number, row.ticks, identity_of(row))


def identity_of(row: Row[Any]) -> Identity:
    """The identity of a row that holds all its columns."""
    return Identity(
        id=row.id,
        gallery_id=row.gallery_id,
        name=row.name,
        metadata=row.metadata,
        faces=row.faces,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
