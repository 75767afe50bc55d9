"""What each write to a gallery does in its transaction: rows change, and the index learns what to change."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np
from sqlalchemy import Connection

from sphereid.gallery import store, validation
from sphereid.gallery.audit import Event
from sphereid.gallery.errors import ConflictError, InvalidRequestError, NotFoundError
from sphereid.gallery.gallery_index import NO_KEYS
from sphereid.gallery.index.ports import Keys
from sphereid.gallery.thresholds.decisions import template_of
from sphereid.gallery.types import (
    DeleteReceipt,
    Enrolled,
    Gallery,
    GalleryRules,
    Identity,
    NewFace,
    StoredAnswer,
    Vectors,
)

S = TypeVar("S")
T = TypeVar("T")

Entries = tuple[Keys, Vectors] | None

_GALLERY_MEMBERS = ("name", "metadata", "policy", "ambiguity_margin", "template", "keep_crops", "quality")


@dataclass(frozen=True, slots=True)
class Keyed(Generic[T]):
    """A write that came with an Idempotency-Key. The answer that `render` makes of its result is stored in
    the write's own transaction: either both happened or neither.

    fingerprint: a digest of the request, by which another one under the same key is told apart.
    """

    key: str
    fingerprint: str
    render: Callable[[T], StoredAnswer]

    def after(self, show: Callable[[S], T]) -> "Keyed[S]":
        """The same for a write whose result `show` turns into this one's."""
        return Keyed(self.key, self.fingerprint, lambda result: self.render(show(result)))


@dataclass(frozen=True, slots=True, eq=False)
class Change(Generic[T]):
    """What a transaction did. gallery: as it is after it. removed, added: entries of the index.

    rebuild: the entries are of another kind now; the index has to be compared with the database. events: for
    the audit log.
    """

    result: T
    gallery: Gallery
    removed: Keys = field(default_factory=lambda: NO_KEYS)
    added: Entries = None
    rebuild: bool = False
    events: tuple[Event, ...] = ()


def update_gallery(tx: Connection, old: Gallery, new: Gallery) -> Change[Gallery]:
    validation.rules(
        GalleryRules(new.policy, new.ambiguity_margin, new.template, new.keep_crops, new.quality)
    )
    store.set_gallery(tx, new)
    if old.keep_crops and not new.keep_crops:
        store.delete_crops(tx, new.id)
    gallery = store.touch_gallery(tx, new.id)
    changed = [name for name in _GALLERY_MEMBERS if getattr(old, name) != getattr(new, name)]
    return Change(
        gallery,
        gallery,
        rebuild=(old.template == "mean") != (new.template == "mean"),
        events=(Event("gallery.update", new.id, None, {"changed": changed}),),
    )


def create_identity(
    tx: Connection, gallery_id: str, identity_id: str, name: str, metadata: Mapping[str, Any]
) -> Change[Identity]:
    if store.find_identity(tx, gallery_id, identity_id) is not None:
        raise ConflictError("identity_exists", f"identity {identity_id!r} exists already in {gallery_id!r}")
    made = store.insert_identity(tx, gallery_id, identity_id, name, metadata)
    gallery = store.touch_gallery(tx, gallery_id, identities=1)
    return Change(made.identity, gallery, events=(Event("identity.create", gallery_id, identity_id),))


def update_identity(
    tx: Connection, gallery_id: str, identity_id: str, name: str | None, metadata: Mapping[str, Any] | None
) -> Change[Identity]:
    old = store.get_identity(tx, gallery_id, identity_id)
    called = old.identity.name if name is None else validation.name(name, identity_id)
    details = old.identity.metadata if metadata is None else validation.metadata(metadata)
    store.set_identity(tx, old.number, called, details)
    updated = store.get_identity(tx, gallery_id, identity_id).identity
    given = {"name": name, "metadata": metadata}
    changed = {"changed": [member for member, value in given.items() if value is not None]}
    event = Event("identity.update", gallery_id, identity_id, changed)
    return Change(updated, store.touch_gallery(tx, gallery_id), events=(event,))


def delete_identity(tx: Connection, gallery_id: str, identity_id: str) -> Change[DeleteReceipt]:
    owner = store.get_identity(tx, gallery_id, identity_id)
    faces = store.faces_of(tx, owner.number)
    store.delete_identity(tx, owner.number)
    gallery = store.touch_gallery(tx, gallery_id, identities=-1, faces=-len(faces))
    receipt = DeleteReceipt(1, len(faces), gallery.revision)
    event = Event("identity.delete", gallery_id, identity_id, {"faces": len(faces)})
    return Change(receipt, gallery, _entries_of(gallery, owner, faces), events=(event,))


def merge_identities(tx: Connection, gallery_id: str, into: str, source: str) -> Change[Identity]:
    if into == source:
        raise InvalidRequestError("an identity cannot be merged into itself")
    target = store.get_identity(tx, gallery_id, into)
    other = store.get_identity(tx, gallery_id, source)
    old, new = store.move_faces(tx, other, target)
    store.delete_identity(tx, other.number)
    merged = store.get_identity(tx, gallery_id, into).identity
    gallery = store.touch_gallery(tx, gallery_id, identities=-1)
    event = Event("identity.merge", gallery_id, into, {"source": source, "faces": len(old)})
    if not len(old):
        return Change(merged, gallery, events=(event,))
    if gallery.template == "mean":
        removed, added = mean_moved(tx, target)
        removed = np.concatenate([removed, _entries_of(gallery, other, old)])
    else:
        removed, added = old, store.vectors(tx, new.tolist())
    return Change(merged, gallery, removed, added, events=(event,))


def enroll(
    tx: Connection,
    gallery: Gallery,
    identity_id: str,
    faces: Sequence[NewFace],
    vectors: Vectors,
    *,
    create: bool,
    name: str | None,
) -> Change[Enrolled]:
    owner, new = store.find_identity(tx, gallery.id, identity_id), 0
    if owner is None and create:
        called, new = validation.name(name, identity_id), 1
        owner = store.insert_identity(tx, gallery.id, identity_id, called, {})
    if owner is None:
        raise NotFoundError(
            "identity_not_found",
            f"there is no identity {identity_id!r} in gallery {gallery.id!r}; create it first",
        )
    if gallery.contract is None:
        store.set_gallery(tx, replace(gallery, contract=faces[0].contract), dimension=vectors.shape[1])
    rows = [
        (face.id or validation.new_id(), face if gallery.keep_crops else replace(face, crop=None))
        for face in faces
    ]
    numbers, stored = store.insert_faces(tx, gallery.id, owner, rows)
    gallery = store.touch_gallery(tx, gallery.id, identities=new, faces=len(faces))
    if gallery.template == "mean":
        removed, added = mean_moved(tx, owner)
    else:
        removed, added = NO_KEYS, (numbers, vectors)
    details = {"faces": [face.id for face in stored], "created": bool(new)}
    event = Event("face.enroll", gallery.id, identity_id, details)
    return Change(Enrolled(stored, (), gallery.revision), gallery, removed, added, events=(event,))


def delete_face(tx: Connection, gallery_id: str, identity_id: str, face_id: str) -> Change[DeleteReceipt]:
    owner = store.get_identity(tx, gallery_id, identity_id)
    number, _ = store.find_face(tx, owner, face_id)
    store.delete_face(tx, owner, number)
    gallery = store.touch_gallery(tx, gallery_id, faces=-1)
    if gallery.template == "mean":
        removed, added = mean_moved(tx, owner)
    else:
        removed, added = np.array([number], np.int64), None
    event = Event("face.delete", gallery_id, identity_id, {"face": face_id})
    return Change(DeleteReceipt(0, 1, gallery.revision), gallery, removed, added, events=(event,))


def _entries_of(gallery: Gallery, owner: store.NumberedIdentity, faces: Keys) -> Keys:
    return np.array([owner.template_key], np.int64) if gallery.template == "mean" and len(faces) else faces


def mean_moved(tx: Connection, before: store.NumberedIdentity) -> tuple[Keys, Entries]:
    """The entry that an identity's mean had, and the one that it has after a change to its faces."""
    after = store.get_identity(tx, before.identity.gallery_id, before.identity.id)
    removed = np.array([before.template_key], np.int64) if before.identity.faces else NO_KEYS
    if not after.identity.faces:
        return removed, None
    _, faces = store.vectors_of_identities(tx, [after.number])
    return removed, (np.array([after.template_key], np.int64), template_of(faces)[None])
