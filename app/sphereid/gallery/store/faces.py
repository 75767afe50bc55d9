"""Enrolled faces: their rows, their embeddings, and what is kept of their photographs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from sphereid.gallery.errors import InvalidRequestError, NotFoundError
from sphereid.gallery.index.ports import Keys
from sphereid.gallery.store.identities import NumberedIdentity, identity_of, tick
from sphereid.gallery.store.rows import after_number, batches, now, page
from sphereid.gallery.store.rows import numbers as numbers_of
from sphereid.gallery.store.tables import CROPS, FACES, IDENTITIES, ORDINAL_BITS
from sphereid.gallery.types import Identity, NewFace, Page, StoredFace, Vectors

_FACE_COLUMNS = tuple(c for c in FACES.c if c.name != "vector")

# What identifications and writes ask for, built once: building a statement takes longer than running it.
_FACES_BY_NUMBER = (
    select(FACES.c.number.label("face_number"), FACES.c.id.label("face_id"), *IDENTITIES.c)
    .join(IDENTITIES, IDENTITIES.c.number == FACES.c.identity_number)
    .where(
        FACES.c.number.in_(bindparam("numbers", expanding=True)), FACES.c.gallery_id == bindparam("gallery")
    )
)
_VECTORS = (
    select(FACES.c.number, FACES.c.vector)
    .where(FACES.c.number.in_(bindparam("numbers", expanding=True)))
    .order_by(FACES.c.number)
)
_VECTORS_OF = (
    select(FACES.c.number, FACES.c.vector)
    .where(FACES.c.identity_number.in_(bindparam("identities", expanding=True)))
    .order_by(FACES.c.number)
)
_FACE = select(*_FACE_COLUMNS).where(
    FACES.c.identity_number == bindparam("identity"), FACES.c.id == bindparam("face")
)
_INSERT = insert(FACES)
_DELETE = delete(FACES).where(FACES.c.number == bindparam("face"))


@dataclass(frozen=True, slots=True)
class Found:
    """A face that a search came up with, and whose it is."""

    face_id: str
    identity: Identity


def insert_faces(
    tx: Connection, gallery_id: str, owner: NumberedIdentity, faces: Sequence[tuple[str, NewFace]]
) -> tuple[Keys, tuple[StoredFace, ...]]:
    """Add faces with their ids, and the crops that come with them; returns their numbers and what is stored
    of them. The identity's count and ticks move along."""
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
    tx.execute(_INSERT, rows)
    crops = [{"face_id": face_id, "image": face.crop} for face_id, face in faces if face.crop is not None]
    if crops:
        tx.execute(insert(CROPS), crops)
    tick(tx, owner.number, faces=len(faces), ticks=len(faces))
    person = owner.identity
    stored = tuple(
        StoredFace(
            *(face_id, person.id, gallery_id, face.quality, face.detection_score, face.source),
            created_at=face.created_at or at,
        )
        for face_id, face in faces
    )
    return numbers, stored


def find_face(tx: Connection, owner: NumberedIdentity, face_id: str) -> tuple[int, StoredFace]:
    """The face and its number; NotFoundError where the identity has none of this id."""
    row = tx.execute(_FACE, {"identity": owner.number, "face": face_id}).first()
    if row is None:
        raise NotFoundError(
            "face_not_found_in_gallery", f"identity {owner.identity.id!r} has no face {face_id!r}"
        )
    return row.number, _face(row, owner.identity.id)


def list_faces(tx: Connection, owner: NumberedIdentity, cursor: str | None, limit: int) -> Page[StoredFace]:
    query = select(*_FACE_COLUMNS).where(FACES.c.identity_number == owner.number).order_by(FACES.c.number)
    if cursor is not None:
        query = query.where(FACES.c.number > after_number(cursor))
    return page(tx, query, limit, lambda row: (str(row.number), _face(row, owner.identity.id)))


def delete_face(tx: Connection, owner: NumberedIdentity, number: int) -> None:
    if owner.ticks + 1 >= 1 << ORDINAL_BITS:
        raise InvalidRequestError(
            f"identity {owner.identity.id!r} has changed too often; delete it and enroll anew"
        )
    tx.execute(_DELETE, {"face": number})
    tick(tx, owner.number, faces=-1, ticks=1)


def move_faces(tx: Connection, source: NumberedIdentity, target: NumberedIdentity) -> tuple[Keys, Keys]:
    """Give the faces of one identity to another; their numbers before and after. The ids stay."""
    old = np.sort(faces_of(tx, source.number))
    if target.ticks + len(old) >= 1 << ORDINAL_BITS:
        raise InvalidRequestError(f"identity {target.identity.id!r} cannot take {len(old)} more faces")
    new = (target.number << ORDINAL_BITS) + target.ticks + 1 + np.arange(len(old), dtype=np.int64)
    for before, after in zip(old.tolist(), new.tolist(), strict=True):
        moved = {"number": after, "identity_number": target.number}
        tx.execute(update(FACES).where(FACES.c.number == before).values(moved))
    tick(tx, target.number, faces=len(old), ticks=len(old))
    return old, new


def face_numbers(tx: Connection, gallery_id: str) -> Keys:
    """(N,) int64: every face of a gallery."""
    return numbers_of(tx, select(FACES.c.number).where(FACES.c.gallery_id == gallery_id))


def faces_of(tx: Connection, identity_number: int) -> Keys:
    """(F,) int64: the faces of one identity."""
    return numbers_of(tx, select(FACES.c.number).where(FACES.c.identity_number == identity_number))


def vectors_of_identities(tx: Connection, numbers: Iterable[int]) -> tuple[Keys, Vectors]:
    """Every face of some identities: numbers (F,) and vectors (F, D), by rising number."""
    rows: list[tuple[int, bytes]] = []
    for some in batches(sorted(set(numbers))):
        rows += [(row[0], row[1]) for row in tx.execute(_VECTORS_OF, {"identities": some})]
    return _unpack(rows)


def vectors_after(tx: Connection, gallery_id: str, number: int, limit: int) -> tuple[Keys, Vectors]:
    """The next faces of a gallery past a number, by rising number."""
    query = select(FACES.c.number, FACES.c.vector).where(FACES.c.gallery_id == gallery_id)
    query = query.where(FACES.c.number > number).order_by(FACES.c.number).limit(limit)
    return _unpack([(row.number, row.vector) for row in tx.execute(query)])


def vectors(tx: Connection, numbers: Sequence[int]) -> tuple[Keys, Vectors]:
    """Some faces by number, which rise; those that are gone are left out."""
    rows: list[tuple[int, bytes]] = []
    for some in batches(numbers):
        rows += [(row[0], row[1]) for row in tx.execute(_VECTORS, {"numbers": some})]
    return _unpack(rows)


def found_faces(tx: Connection, gallery_id: str, numbers: Sequence[int]) -> dict[int, Found]:
    """The faces of these numbers that are still there."""
    found: dict[int, Found] = {}
    for some in batches(sorted(set(numbers))):
        rows = tx.execute(_FACES_BY_NUMBER, {"gallery": gallery_id, "numbers": some})
        found |= {row.face_number: Found(row.face_id, identity_of(row)) for row in rows}
    return found


def crops(tx: Connection, face_ids: Sequence[str]) -> dict[str, bytes]:
    """What is kept of the photographs of some faces."""
    found: dict[str, bytes] = {}
    for some in batches(face_ids):
        query = select(CROPS.c.face_id, CROPS.c.image).where(CROPS.c.face_id.in_(some))
        found |= {row.face_id: row.image for row in tx.execute(query)}
    return found


def portrait(tx: Connection, owner: NumberedIdentity) -> bytes | None:
    """What is kept of an identity's best photograph; None where nothing is."""
    query = select(CROPS.c.image).join(FACES, FACES.c.id == CROPS.c.face_id)
    query = query.where(FACES.c.identity_number == owner.number).order_by(FACES.c.quality.desc()).limit(1)
    found: bytes | None = tx.execute(query).scalar()
    return found


def delete_crops(tx: Connection, gallery_id: str) -> None:
    """Forget the photographs of a gallery's faces."""
    members = select(FACES.c.id).where(FACES.c.gallery_id == gallery_id)
    tx.execute(delete(CROPS).where(CROPS.c.face_id.in_(members)))


def _unpack(rows: Sequence[tuple[int, bytes]]) -> tuple[Keys, Vectors]:
    numbers = np.array([number for number, _ in rows], dtype=np.int64)
    flat = np.frombuffer(b"".join(vector for _, vector in rows), dtype="<f4")
    return numbers, flat.reshape(len(rows), -1).astype(np.float32, copy=False) if rows else flat.reshape(0, 0)


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
