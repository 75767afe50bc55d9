"""Faces come into a gallery: one by one, many at once, or anew from another model."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Literal

from sqlalchemy import Connection

from sphereid.gallery import bulk_enrollment, model_change, validation, writes
from sphereid.gallery.bulk_enrollment import BulkEnrolled, NewPerson
from sphereid.gallery.errors import ConflictError
from sphereid.gallery.gallery_index import GalleryIndex
from sphereid.gallery.model_change import CropsOf
from sphereid.gallery.registry import settle
from sphereid.gallery.search import Search
from sphereid.gallery.types import Duplicate, Enrolled, Gallery, NewFace, Vectors
from sphereid.gallery.writes import Change, Keyed

NEAR_DUPLICATE = 0.99
"""Similarity from which two faces of one identity count as the same photograph."""


class Enrollment(Search):
    """The part of `GalleryService` that enrolls."""

    def enroll(
        self,
        gallery_id: str,
        identity_id: str,
        faces: Sequence[NewFace],
        *,
        create: bool = False,
        name: str | None = None,
        strict: bool = False,
        keyed: Keyed[Enrolled] | None = None,
    ) -> Enrolled:
        """Add faces to an identity, which `create` makes where it is missing.

        Faces that resemble another identity at the gallery's threshold, or repeat a photograph of this one,
        come back as `duplicates`; with `strict` they are refused together with the whole call: ConflictError
        `duplicate_face`. The first face binds the gallery to its embedding contract; another contract later
        is a ContractMismatchError.
        """
        validation.slug(identity_id, "identity")
        vectors, contract = validation.new_faces(faces)
        live = self._find(gallery_id)
        with live.writer:
            live.ready()
            self._fits(live, contract, vectors)
            duplicates = self._duplicates(live, identity_id, vectors)
            if strict and duplicates:
                first = duplicates[0]
                raise ConflictError(
                    "duplicate_face",
                    f"the face resembles identity {first.identity_id!r} (similarity {first.similarity:.3f}); "
                    "enroll it there, or enroll without strict",
                )

            def write(tx: Connection) -> Change[Enrolled]:
                change = writes.enroll(
                    tx, live.gallery, identity_id, faces, vectors, create=create, name=name
                )
                return replace(change, result=replace(change.result, duplicates=tuple(duplicates)))

            return self._write(live, write, keyed)

    def enroll_many(
        self,
        gallery_id: str,
        people: Sequence[NewPerson],
        *,
        duplicates: Literal["ignore", "report", "refuse"] = "ignore",
    ) -> tuple[BulkEnrolled, dict[str, str]]:
        """Add people with their faces in one write; identities are made, and faces whose id is there already
        are left alone, so that it can be repeated.

        Second comes, for ids of faces that resemble another identity at the gallery's threshold, who that is;
        with `refuse` they are not enrolled.
        """
        live = self._find(gallery_id)
        vectors, contract = bulk_enrollment.checked(people)
        with live.writer:
            live.ready()
            resembled: dict[str, str] = {}
            if contract is not None:
                self._fits(live, contract, vectors)
            if contract is not None and duplicates != "ignore":
                owners = [(person.id, str(face.id)) for person in people for face in person.faces]
                bound = replace(live.gallery, contract=contract)  # these may be the first
                limit = self._threshold(bound, live.size() + len(vectors)).value
                others = bulk_enrollment.resembling(
                    self._nearest(live, vectors, 2), vectors, [owner for owner, _ in owners], limit
                )
                pairs = zip(owners, others, strict=True)
                resembled = {face_id: other for (_, face_id), other in pairs if other is not None}
            if duplicates == "refuse":
                kept = [[face for face in p.faces if face.id not in resembled] for p in people]
                people = [replace(p, faces=faces) for p, faces in zip(people, kept, strict=True) if faces]
            return self._write(
                live, lambda tx: bulk_enrollment.enroll(tx, live.gallery, people), None
            ), resembled

    def exchange_embeddings(
        self, gallery_id: str, contract: str, embed: Callable[[Sequence[str], CropsOf], Vectors]
    ) -> Gallery:
        """Every face gets the embedding that `embed` has for its id, by the model of `contract`, in one
        write. Until it is committed, the old ones answer; searches on the way are done again."""
        live = self._find(gallery_id)
        with live.writer, ExitStack() as stack, self._writing(live) as tx:
            change = model_change.exchange(tx, live.gallery, contract, embed)
            settle(tx, change.result, None, *change.events)
            stack.enter_context(live.changing_model(tx, change.gallery))
            # committed: at the end of this block the new index takes over
        self._maintenance.scrub()
        return change.result

    def known_faces(self, gallery_id: str, face_ids: Sequence[str]) -> set[str]:
        """Those of the ids that faces of this gallery have."""
        with self._reading(gallery_id) as tx:
            return bulk_enrollment.known_faces(tx, gallery_id, face_ids)

    def _duplicates(self, live: GalleryIndex, identity_id: str, vectors: Vectors) -> list[Duplicate]:
        """At most one for each new face: the nearest that is too near. The caller holds the gallery's writer
        lock."""
        limit = self._threshold(live.gallery, live.size()).value
        found = []
        for row in self._nearest(live, vectors, 2):
            for c in row:
                if c.similarity >= (NEAR_DUPLICATE if c.identity_id == identity_id else limit):
                    found.append(Duplicate(c.identity_id, c.face_id, c.similarity))
                    break
        return found
