"""Many people at once, in one write: what imports do. A face that is there already stays as it is."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, select, update

from sphereid.gallery import store, validation
from sphereid.gallery.audit import Event
from sphereid.gallery.gallery_index import NO_KEYS
from sphereid.gallery.index.ports import Keys
from sphereid.gallery.store.tables import FACES, IDENTITIES
from sphereid.gallery.types import Candidate, Gallery, NewFace, Vectors
from sphereid.gallery.writes import Change, mean_moved


@dataclass(frozen=True, slots=True, eq=False)
class NewPerson:
    """An identity with faces to add; every face has an id. An identity that exists keeps its name and
    metadata.

    created_at, updated_at: of an identity that is made, None: now.
    """

    id: str
    faces: Sequence[NewFace]
    name: str | None = None
    metadata: Mapping[str, Any] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BulkEnrolled:
    """enrolled: ids of the faces that were added, as they were given. present: of those that were there.
    identities: how many were made. revision: of the gallery after it."""

    enrolled: frozenset[str]
    present: frozenset[str]
    identities: int
    revision: int


def checked(people: Sequence[NewPerson]) -> tuple[Vectors, str | None]:
    """The vectors of all faces (N, D) and their one contract. Raises InvalidRequestError,
    ContractMismatchError."""
    for person in people:
        check_person(person)
    faces = [face for person in people for face in person.faces]
    return validation.new_faces(faces) if faces else (np.empty((0, 0), np.float32), None)


def check_person(person: NewPerson) -> None:
    """Raises InvalidRequestError where id, name or metadata cannot be stored."""
    validation.slug(person.id, "identity")
    validation.name(person.name, person.id)
    validation.metadata(person.metadata or {})


def enroll(tx: Connection, gallery: Gallery, people: Sequence[NewPerson]) -> Change[BulkEnrolled]:
    """Add what is missing."""
    given = [face for person in people for face in person.faces]
    if given and gallery.contract is None:
        gallery = replace(gallery, contract=given[0].contract)
        store.set_gallery(tx, gallery, dimension=len(given[0].vector))
    known = _owners_of_faces(tx, [str(face.id) for face in given])
    enrolled: set[str] = set()
    present: set[str] = set()
    removed: list[Keys] = []
    added: list[tuple[Keys, Vectors]] = []
    made = 0
    events: list[Event] = []
    for person in people:
        owner = store.find_identity(tx, gallery.id, person.id)
        if owner is None:
            called = validation.name(person.name, person.id)
            owner = store.insert_identity(tx, gallery.id, person.id, called, person.metadata or {})
            made += 1
            events.append(Event("identity.create", gallery.id, person.id))
            if person.created_at is not None:
                _stamp(tx, owner.number, person)
                owner = store.get_identity(tx, gallery.id, person.id)
        new: list[tuple[str, NewFace]] = []
        for face in person.faces:
            face_id = _free_id(tx, gallery.id, str(face.id), known)
            if face_id is None:
                present.add(str(face.id))
                continue
            known[face_id] = gallery.id
            enrolled.add(str(face.id))
            new.append((face_id, face if gallery.keep_crops else replace(face, crop=None)))
        if not new:
            continue
        numbers, _ = store.insert_faces(tx, gallery.id, owner, new)
        faces = {"faces": [face_id for face_id, _ in new]}
        events.append(Event("face.enroll", gallery.id, person.id, faces))
        if person.updated_at is not None and owner.identity.created_at == person.created_at:
            _stamp(tx, owner.number, person)
        if gallery.template == "mean":
            before, mean = mean_moved(tx, owner)
            removed.append(before)
            added += [mean] if mean is not None else []
        else:
            added.append((numbers, np.stack([face.vector for _, face in new])))
    if made or enrolled:
        gallery = store.touch_gallery(tx, gallery.id, identities=made, faces=len(enrolled))
    result = BulkEnrolled(frozenset(enrolled), frozenset(present - enrolled), made, gallery.revision)
    entries = None
    if added:
        entries = np.concatenate([k for k, _ in added]), np.concatenate([v for _, v in added])
    gone = np.concatenate(removed) if removed else NO_KEYS
    return Change(result, gallery, gone, entries, events=tuple(events))


def known_faces(tx: Connection, gallery_id: str, face_ids: Sequence[str]) -> set[str]:
    """Those of the ids that faces of this gallery have."""
    return {face for face, gallery in _owners_of_faces(tx, face_ids).items() if gallery == gallery_id}


def resembling(
    nearest: Sequence[Sequence[Candidate]], vectors: Vectors, owners: Sequence[str], limit: float
) -> list[str | None]:
    """For each new face the other identity that it resembles at the similarity `limit`, if any: one that is
    enrolled (nearest: candidates for each face), or one that comes before it among the new ones."""
    found: list[str | None] = []
    for i, (row, owner) in enumerate(zip(nearest, owners, strict=True)):
        others = [c.identity_id for c in row if c.similarity >= limit and c.identity_id != owner]
        if not others and i:
            near = np.flatnonzero(vectors[:i] @ vectors[i] >= limit)
            others = [owners[j] for j in near.tolist() if owners[j] != owner]
        found.append(others[0] if others else None)
    return found


def _owners_of_faces(tx: Connection, face_ids: Sequence[str]) -> dict[str, str]:
    """The gallery of every face of these ids, anywhere."""
    found: dict[str, str] = {}
    for start in range(0, len(face_ids), store.BATCH):
        some = list(face_ids[start : start + store.BATCH])
        rows = tx.execute(select(FACES.c.id, FACES.c.gallery_id).where(FACES.c.id.in_(some)))
        found |= {row.id: row.gallery_id for row in rows}
    return found


def _free_id(tx: Connection, gallery_id: str, wanted: str, known: dict[str, str]) -> str | None:
    """The id to enroll a face under: its own, or where another gallery has that, one that follows from it.
    None where this gallery has the face."""
    if wanted not in known:
        return wanted
    if known[wanted] == gallery_id:
        return None
    other = hashlib.sha256(f"{gallery_id}\0{wanted}".encode()).hexdigest()[:24]
    return None if other in known or _owners_of_faces(tx, [other]) else other


def _stamp(tx: Connection, number: int, person: NewPerson) -> None:
    times = {"created_at": person.created_at, "updated_at": person.updated_at or person.created_at}
    tx.execute(update(IDENTITIES).where(IDENTITIES.c.number == number).values(times))
