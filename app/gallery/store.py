"""Rows in and rows out. Every function works in the transaction that it is given; none commits."""

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Row,
    Select,
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

from app.gallery.errors import ConflictError, InvalidRequestError, NotFoundError
from app.gallery.index.ports import Keys
from app.gallery.models import CROPS, FACES, GALLERIES, IDENTITIES, ORDINAL_BITS
from app.gallery.types import (
    CosinePolicy,
    FpirPolicy,
    Gallery,
    GalleryRules,
    Identity,
    MetadataFilter,
    NewFace,
    Page,
    StoredFace,
    Strictness,
    TemplatePolicy,
    ThresholdPolicy,
    Vectors,
)

_FACE_COLUMNS = tuple(c for c in FACES.c if c.name != "vector")

BATCH = 500
"""Values in one IN (...): SQLite and PostgreSQL both take it."""

# What every identification asks for, built once: building a statement takes longer than running it.
_IDENTITIES_BY_ID = select(IDENTITIES).where(
    IDENTITIES.c.gallery_id == bindparam("gallery"), IDENTITIES.c.id.in_(bindparam("ids", expanding=True))
)
_FACES_BY_NUMBER = (
    select(FACES.c.number, FACES.c.id, FACES.c.identity_number, IDENTITIES.c.id)
    .join(IDENTITIES, IDENTITIES.c.number == FACES.c.identity_number)
    .where(
        FACES.c.number.in_(bindparam("numbers", expanding=True)), FACES.c.gallery_id == bindparam("gallery")
    )
)


def now() -> datetime:
    return datetime.now(UTC)


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


@dataclass(frozen=True, slots=True)
class Found:
    """A face that a search came up with, as the database knows it."""

    number: int
    face_id: str
    identity_number: int
    identity_id: str


# Galleries


def insert_gallery(
    tx: Connection, gallery_id: str, name: str, metadata: Mapping[str, Any], rules: GalleryRules
) -> Gallery:
    if tx.execute(select(GALLERIES.c.id).where(GALLERIES.c.id == gallery_id)).first():
        raise ConflictError("gallery_exists", f"gallery {gallery_id!r} exists already; choose another id")
    at = now()
    tx.execute(
        insert(GALLERIES).values(
            id=gallery_id,
            name=name,
            metadata=dict(metadata),
            **_rule_columns(rules.policy, rules.ambiguity_margin, rules.template),
            keep_crops=rules.keep_crops,
            quality=rules.quality,
            revision=0,
            identities=0,
            faces=0,
            created_at=at,
            updated_at=at,
        )
    )
    return get_gallery(tx, gallery_id)


def get_gallery(tx: Connection, gallery_id: str) -> Gallery:
    row = tx.execute(select(GALLERIES).where(GALLERIES.c.id == gallery_id)).first()
    if row is None:
        raise NotFoundError("gallery_not_found", f"there is no gallery {gallery_id!r}")
    return _gallery(row)


def list_galleries(tx: Connection, cursor: str | None, limit: int) -> Page[Gallery]:
    query = select(GALLERIES).order_by(GALLERIES.c.id)
    if cursor is not None:
        query = query.where(GALLERIES.c.id > _after(cursor))
    return _page(tx, query, limit, lambda row: (str(row.id), _gallery(row)))


def set_gallery(tx: Connection, gallery: Gallery, *, dimension: int | None = None) -> None:
    """Write back all that may change of a gallery; its counts and revision move by `touch_gallery`."""
    values = {
        "name": gallery.name,
        "metadata": dict(gallery.metadata),
        "contract": gallery.contract,
        "keep_crops": gallery.keep_crops,
        "quality": gallery.quality,
        **_rule_columns(gallery.policy, gallery.ambiguity_margin, gallery.template),
    }
    if dimension is not None:
        values["dimension"] = dimension
    tx.execute(update(GALLERIES).where(GALLERIES.c.id == gallery.id).values(values))


def touch_gallery(tx: Connection, gallery_id: str, *, identities: int = 0, faces: int = 0) -> Gallery:
    """Count a write: the revision goes up by one, the counts by what is given. Returns the gallery after
    it."""
    g = GALLERIES.c
    tx.execute(
        update(GALLERIES)
        .where(g.id == gallery_id)
        .values(
            revision=g.revision + 1,
            identities=g.identities + identities,
            faces=g.faces + faces,
            updated_at=now(),
        )
    )
    return get_gallery(tx, gallery_id)


def dimension_of(tx: Connection, gallery_id: str) -> int | None:
    return tx.execute(select(GALLERIES.c.dimension).where(GALLERIES.c.id == gallery_id)).scalar()


def delete_gallery(tx: Connection, gallery_id: str) -> None:
    # In this order no database has to follow a cascade row by row.
    members = select(IDENTITIES.c.number).where(IDENTITIES.c.gallery_id == gallery_id)
    tx.execute(delete(FACES).where(FACES.c.identity_number.in_(members)))
    tx.execute(delete(IDENTITIES).where(IDENTITIES.c.gallery_id == gallery_id))
    tx.execute(delete(GALLERIES).where(GALLERIES.c.id == gallery_id))


# Identities


def insert_identity(
    tx: Connection, gallery_id: str, identity_id: str, name: str, metadata: Mapping[str, Any]
) -> NumberedIdentity:
    if find_identity(tx, gallery_id, identity_id) is not None:
        raise ConflictError("identity_exists", f"identity {identity_id!r} exists already in {gallery_id!r}")
    at = now()
    tx.execute(
        insert(IDENTITIES).values(
            gallery_id=gallery_id,
            id=identity_id,
            name=name,
            metadata=dict(metadata),
            faces=0,
            ticks=0,
            created_at=at,
            updated_at=at,
        )
    )
    return get_identity(tx, gallery_id, identity_id)


def find_identity(tx: Connection, gallery_id: str, identity_id: str) -> NumberedIdentity | None:
    row = tx.execute(
        select(IDENTITIES).where(IDENTITIES.c.gallery_id == gallery_id, IDENTITIES.c.id == identity_id)
    ).first()
    return None if row is None else NumberedIdentity(row.number, row.ticks, _identity(row))


def get_identity(tx: Connection, gallery_id: str, identity_id: str) -> NumberedIdentity:
    found = find_identity(tx, gallery_id, identity_id)
    if found is None:
        raise NotFoundError(
            "identity_not_found", f"there is no identity {identity_id!r} in gallery {gallery_id!r}"
        )
    return found


def get_identities(tx: Connection, gallery_id: str, ids: Sequence[str]) -> dict[str, Identity]:
    found: dict[str, Identity] = {}
    for some in _batches(ids):
        rows = tx.execute(_IDENTITIES_BY_ID, {"gallery": gallery_id, "ids": some})
        found |= {row.id: _identity(row) for row in rows}
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
        query = query.where(IDENTITIES.c.number > _after_number(cursor))
    if name is not None:
        query = query.where(IDENTITIES.c.name.icontains(name, autoescape=True))
    query = query.where(*_having(tx, where))
    return _page(tx, query, limit, lambda row: (str(row.number), _identity(row)))


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


# Faces


def insert_faces(
    tx: Connection, gallery_id: str, owner: NumberedIdentity, faces: Sequence[tuple[str, NewFace]]
) -> Keys:
    """Add faces with their ids, and the crops that come with them; returns their numbers. The identity's
    count and ticks move along."""
    at, first = now(), owner.ticks + 1
    if owner.ticks + len(faces) >= 1 << ORDINAL_BITS:
        raise InvalidRequestError(f"identity {owner.identity.id!r} has had its {1 << ORDINAL_BITS} faces")
    numbers = (owner.number << ORDINAL_BITS) + np.arange(first, first + len(faces), dtype=np.int64)
    rows = [
        {
            "number": number,
            "id": face_id,
            "gallery_id": gallery_id,
            "identity_number": owner.number,
            "contract": face.contract,
            "vector": np.asarray(face.vector, dtype="<f4").tobytes(),
            "quality": face.quality,
            "detection_score": face.detection_score,
            "source": face.source,
            "created_at": face.created_at or at,
        }
        for number, (face_id, face) in zip(numbers.tolist(), faces, strict=True)
    ]
    tx.execute(insert(FACES), rows)
    crops = [{"face_id": face_id, "image": face.crop} for face_id, face in faces if face.crop is not None]
    if crops:
        tx.execute(insert(CROPS), crops)
    _tick(tx, owner.number, faces=len(faces), ticks=len(faces))
    return numbers


def find_face(tx: Connection, owner: NumberedIdentity, face_id: str) -> tuple[int, StoredFace]:
    """The face and its number; NotFoundError where the identity has none of this id."""
    row = tx.execute(
        select(*_FACE_COLUMNS).where(FACES.c.identity_number == owner.number, FACES.c.id == face_id)
    ).first()
    if row is None:
        raise NotFoundError(
            "face_not_found_in_gallery", f"identity {owner.identity.id!r} has no face {face_id!r}"
        )
    return row.number, _face(row, owner.identity.id)


def list_faces(tx: Connection, owner: NumberedIdentity, cursor: str | None, limit: int) -> Page[StoredFace]:
    query = select(*_FACE_COLUMNS).where(FACES.c.identity_number == owner.number).order_by(FACES.c.number)
    if cursor is not None:
        query = query.where(FACES.c.number > _after_number(cursor))
    return _page(tx, query, limit, lambda row: (str(row.number), _face(row, owner.identity.id)))


def get_faces(tx: Connection, owner: NumberedIdentity, numbers: Sequence[int]) -> tuple[StoredFace, ...]:
    query = select(*_FACE_COLUMNS).where(FACES.c.number.in_(numbers)).order_by(FACES.c.number)
    return tuple(_face(row, owner.identity.id) for row in tx.execute(query))


def delete_face(tx: Connection, owner: NumberedIdentity, number: int) -> None:
    if owner.ticks + 1 >= 1 << ORDINAL_BITS:
        raise InvalidRequestError(
            f"identity {owner.identity.id!r} has changed too often; delete it and enroll anew"
        )
    tx.execute(delete(FACES).where(FACES.c.number == number))
    _tick(tx, owner.number, faces=-1, ticks=1)


def move_faces(tx: Connection, source: NumberedIdentity, target: NumberedIdentity) -> tuple[Keys, Keys]:
    """Give the faces of one identity to another; their numbers before and after. The ids stay."""
    old = np.sort(faces_of(tx, source.number))
    if target.ticks + len(old) >= 1 << ORDINAL_BITS:
        raise InvalidRequestError(f"identity {target.identity.id!r} cannot take {len(old)} more faces")
    new = (target.number << ORDINAL_BITS) + target.ticks + 1 + np.arange(len(old), dtype=np.int64)
    for before, after in zip(old.tolist(), new.tolist(), strict=True):
        moved = {"number": after, "identity_number": target.number}
        tx.execute(update(FACES).where(FACES.c.number == before).values(moved))
    _tick(tx, target.number, faces=len(old), ticks=len(old))
    return old, new


def face_numbers(tx: Connection, gallery_id: str) -> Keys:
    """(N,) int64: every face of a gallery."""
    return _numbers(tx, select(FACES.c.number).where(FACES.c.gallery_id == gallery_id))


def faces_of(tx: Connection, identity_number: int) -> Keys:
    """(F,) int64: the faces of one identity."""
    return _numbers(tx, select(FACES.c.number).where(FACES.c.identity_number == identity_number))


def template_keys(tx: Connection, gallery_id: str) -> Keys:
    """(I,) int64: the key of the mean of every identity that has faces. It changes with each change to
    them."""
    i = IDENTITIES.c
    return _numbers(
        tx, select(i.number * (1 << ORDINAL_BITS) + i.ticks).where(i.gallery_id == gallery_id, i.faces > 0)
    )


def vectors_of_identities(tx: Connection, numbers: Iterable[int]) -> tuple[Keys, Vectors]:
    """Every face of some identities: numbers (F,) and vectors (F, D), by rising number."""
    rows: list[tuple[int, bytes]] = []
    for some in _batches(sorted(set(numbers))):
        query = select(FACES.c.number, FACES.c.vector).where(FACES.c.identity_number.in_(some))
        rows += [(row.number, row.vector) for row in tx.execute(query.order_by(FACES.c.number))]
    return _unpack(rows)


def vectors_after(tx: Connection, gallery_id: str, number: int, limit: int) -> tuple[Keys, Vectors]:
    """The next faces of a gallery past a number, by rising number."""
    query = select(FACES.c.number, FACES.c.vector).where(FACES.c.gallery_id == gallery_id)
    query = query.where(FACES.c.number > number).order_by(FACES.c.number).limit(limit)
    return _unpack([(row.number, row.vector) for row in tx.execute(query)])


def vectors(tx: Connection, numbers: Sequence[int]) -> tuple[Keys, Vectors]:
    """Some faces by number, which rise; those that are gone are left out."""
    rows: list[tuple[int, bytes]] = []
    for some in _batches(numbers):
        query = select(FACES.c.number, FACES.c.vector).where(FACES.c.number.in_(some))
        rows += [(row.number, row.vector) for row in tx.execute(query.order_by(FACES.c.number))]
    return _unpack(rows)


def found_faces(tx: Connection, gallery_id: str, numbers: Sequence[int]) -> dict[int, Found]:
    """The faces of these numbers that are still there."""
    found: dict[int, Found] = {}
    for some in _batches(sorted(set(numbers))):
        rows = tx.execute(_FACES_BY_NUMBER, {"gallery": gallery_id, "numbers": some})
        found |= {row[0]: Found(*row) for row in rows}
    return found


def crops(tx: Connection, face_ids: Sequence[str]) -> dict[str, bytes]:
    """What is kept of the photographs of some faces."""
    found: dict[str, bytes] = {}
    for some in _batches(face_ids):
        query = select(CROPS.c.face_id, CROPS.c.image).where(CROPS.c.face_id.in_(some))
        found |= {row.face_id: row.image for row in tx.execute(query)}
    return found


def delete_crops(tx: Connection, gallery_id: str) -> None:
    """Forget the photographs of a gallery's faces."""
    members = select(FACES.c.id).where(FACES.c.gallery_id == gallery_id)
    tx.execute(delete(CROPS).where(CROPS.c.face_id.in_(members)))


def _tick(tx: Connection, number: int, *, faces: int, ticks: int) -> None:
    i = IDENTITIES.c
    values = {"faces": i.faces + faces, "ticks": i.ticks + ticks, "updated_at": now()}
    tx.execute(update(IDENTITIES).where(i.number == number).values(values))


def _numbers(tx: Connection, query: Select[Any]) -> Keys:
    return np.array(tx.execute(query).scalars().all(), dtype=np.int64)


def _unpack(rows: Sequence[tuple[int, bytes]]) -> tuple[Keys, Vectors]:
    numbers = np.array([number for number, _ in rows], dtype=np.int64)
    flat = np.frombuffer(b"".join(vector for _, vector in rows), dtype="<f4")
    return numbers, flat.reshape(len(rows), -1).astype(np.float32, copy=False) if rows else flat.reshape(0, 0)


def _batches(values: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), BATCH):
        yield list(values[start : start + BATCH])


def _rule_columns(policy: ThresholdPolicy, margin: float, template: str) -> dict[str, Any]:
    value = policy.value if isinstance(policy, CosinePolicy) else policy.target
    return {"policy": policy.type, "policy_value": value, "ambiguity_margin": margin, "template": template}


def _gallery(row: Row[Any]) -> Gallery:
    policy = CosinePolicy(row.policy_value) if row.policy == "cosine" else FpirPolicy(row.policy_value)
    return Gallery(
        id=row.id,
        name=row.name,
        metadata=row.metadata,
        policy=policy,
        ambiguity_margin=row.ambiguity_margin,
        template=cast(TemplatePolicy, row.template),
        keep_crops=row.keep_crops,
        quality=cast(Strictness, row.quality),
        contract=row.contract,
        revision=row.revision,
        identities=row.identities,
        faces=row.faces,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _identity(row: Row[Any]) -> Identity:
    return Identity(
        id=row.id,
        gallery_id=row.gallery_id,
        name=row.name,
        metadata=row.metadata,
        faces=row.faces,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _face(row: Row[Any], identity_id: str) -> StoredFace:
    return StoredFace(
        id=row.id,
        identity_id=identity_id,
        gallery_id=row.gallery_id,
        quality=row.quality,
        detection_score=row.detection_score,
        source=row.source,
        created_at=row.created_at,
    )


def _page(tx: Connection, query: Select[Any], limit: int, read: Any) -> Page[Any]:
    rows = [read(row) for row in tx.execute(query.limit(limit + 1))]
    more = len(rows) > limit
    cursor = base64.urlsafe_b64encode(rows[limit - 1][0].encode()).decode() if more else None
    return Page(tuple(item for _, item in rows[:limit]), cursor)


def _after(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor.encode()).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError("this cursor is none that a list gave; start without one") from error


def _after_number(cursor: str) -> int:
    try:
        return int(_after(cursor))
    except ValueError as error:
        raise InvalidRequestError("this cursor is none that a list gave; start without one") from error
