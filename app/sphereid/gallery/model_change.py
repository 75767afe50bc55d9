"""The embeddings of a gallery change places with those of another model, all at once."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from sqlalchemy import Connection, bindparam, func, select, update

from sphereid.gallery import store
from sphereid.gallery.audit import Event
from sphereid.gallery.store.tables import CROPS, FACES
from sphereid.gallery.types import Gallery, Vectors
from sphereid.gallery.writes import Change

CropsOf = Callable[[Sequence[str]], dict[str, bytes]]
"""What is kept of the photographs of some faces, by face id."""

_WRITE = 2_000


def without_crops(tx: Connection, gallery_id: str) -> int:
    """Faces of a gallery of which nothing is kept."""
    query = select(func.count()).select_from(FACES).outerjoin(CROPS, CROPS.c.face_id == FACES.c.id)
    query = query.where(FACES.c.gallery_id == gallery_id, CROPS.c.face_id.is_(None))
    return int(tx.execute(query).scalar_one())


def face_ids(tx: Connection, gallery_id: str) -> list[tuple[int, str]]:
    """Number and id of every face of a gallery, by rising number."""
    query = select(FACES.c.number, FACES.c.id).where(FACES.c.gallery_id == gallery_id)
    return [(row.number, row.id) for row in tx.execute(query.order_by(FACES.c.number))]


def exchange(
    tx: Connection,
    gallery: Gallery,
    contract: str,
    embed: Callable[[Sequence[str], CropsOf], Vectors],
) -> Change[Gallery]:
    """Give every face the embedding that `embed` has for its id, and the gallery their contract."""
    faces = face_ids(tx, gallery.id)
    vectors = embed([face_id for _, face_id in faces], lambda ids: store.crops(tx, ids))
    statement = update(FACES).where(FACES.c.number == bindparam("face"))
    statement = statement.values(vector=bindparam("new"), contract=contract)
    for start in range(0, len(faces), _WRITE):
        some = zip(faces[start : start + _WRITE], vectors[start : start + _WRITE], strict=True)
        rows = [{"face": n, "new": np.asarray(vector, dtype="<f4").tobytes()} for (n, _), vector in some]
        tx.execute(statement, rows)
    store.set_gallery(tx, replace(gallery, contract=contract), dimension=vectors.shape[1])
    changed = store.touch_gallery(tx, gallery.id)
    details = {"old": gallery.contract, "new": contract, "faces": len(faces)}
    return Change(changed, changed, events=(Event("gallery.reembed", gallery.id, None, details),))
