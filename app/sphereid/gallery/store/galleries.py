"""The galleries' own rows."""

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from sphereid.gallery.errors import ConflictError, NotFoundError
from sphereid.gallery.store.rows import after, now, page
from sphereid.gallery.store.tables import FACES, GALLERIES, IDENTITIES
from sphereid.gallery.types import (
    CosinePolicy,
    FpirPolicy,
    Gallery,
    GalleryRules,
    Page,
    Strictness,
    TemplatePolicy,
    ThresholdPolicy,
)

_TOUCH = (
    update(GALLERIES)
    .where(GALLERIES.c.id == bindparam("gallery"))
    .values(
        revision=GALLERIES.c.revision + 1,
        identities=GALLERIES.c.identities + bindparam("more_identities"),
        faces=GALLERIES.c.faces + bindparam("more_faces"),
        updated_at=bindparam("at"),
    )
    .returning(*GALLERIES.c)
)


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
        query = query.where(GALLERIES.c.id > after(cursor))
    return page(tx, query, limit, lambda row: (str(row.id), _gallery(row)))


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
    more = {"gallery": gallery_id, "more_identities": identities, "more_faces": faces, "at": now()}
    row = tx.execute(_TOUCH, more).first()
    if row is None:
        raise NotFoundError("gallery_not_found", f"there is no gallery {gallery_id!r}")
    return _gallery(row)


def dimension_of(tx: Connection, gallery_id: str) -> int | None:
    return tx.execute(select(GALLERIES.c.dimension).where(GALLERIES.c.id == gallery_id)).scalar()


def delete_gallery(tx: Connection, gallery_id: str) -> None:
    # In this order no database has to follow a cascade row by row.
    members = select(IDENTITIES.c.number).where(IDENTITIES.c.gallery_id == gallery_id)
    tx.execute(delete(FACES).where(FACES.c.identity_number.in_(members)))
    tx.execute(delete(IDENTITIES).where(IDENTITIES.c.gallery_id == gallery_id))
    tx.execute(delete(GALLERIES).where(GALLERIES.c.id == gallery_id))


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
