"""Who is in a gallery: its identities, and the faces that they have."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sphereid.gallery import store, validation, writes
from sphereid.gallery.errors import NotFoundError
from sphereid.gallery.registry import Registry
from sphereid.gallery.types import DeleteReceipt, Identity, MetadataFilter, Page, StoredFace
from sphereid.gallery.writes import Keyed


class People(Registry):
    """The part of `GalleryService` that lists, changes and deletes identities and faces."""

    def create_identity(
        self,
        gallery_id: str,
        id: str | None,
        name: str | None,
        metadata: Mapping[str, Any],
        *,
        keyed: Keyed[Identity] | None = None,
    ) -> Identity:
        """ConflictError `identity_exists`."""
        identity_id = validation.slug(id, "identity") if id is not None else validation.new_id()
        called, details = validation.name(name, identity_id), validation.metadata(metadata)
        live = self._find(gallery_id)
        return self._write(
            live, lambda tx: writes.create_identity(tx, gallery_id, identity_id, called, details), keyed
        )

    def get_identity(self, gallery_id: str, identity_id: str) -> Identity:
        """NotFoundError `identity_not_found`, here and wherever an identity is named."""
        with self._reading(gallery_id) as tx:
            return store.get_identity(tx, gallery_id, identity_id).identity

    def identities(self, gallery_id: str, ids: Sequence[str]) -> dict[str, Identity]:
        """Those of the ids that exist."""
        with self._reading(gallery_id) as tx:
            return store.get_identities(tx, gallery_id, list(dict.fromkeys(ids)))

    def list_identities(
        self,
        gallery_id: str,
        *,
        cursor: str | None = None,
        limit: int = 50,
        name: str | None = None,
        where: MetadataFilter | None = None,
    ) -> Page[Identity]:
        """In the order of their creation; `name`: only those whose name contains it, in any case of letters;
        `where`: only those with these members in their metadata."""
        wanted = validation.metadata_filter(where or {})
        with self._reading(gallery_id) as tx:
            return store.list_identities(tx, gallery_id, cursor, validation.limit(limit), name, wanted)

    def update_identity(
        self,
        gallery_id: str,
        identity_id: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        keyed: Keyed[Identity] | None = None,
    ) -> Identity:
        """Change what is given; `metadata` replaces the whole."""
        live = self._find(gallery_id)
        return self._write(
            live, lambda tx: writes.update_identity(tx, gallery_id, identity_id, name, metadata), keyed
        )

    def delete_identity(
        self, gallery_id: str, identity_id: str, *, keyed: Keyed[DeleteReceipt] | None = None
    ) -> DeleteReceipt:
        """Remove the identity and its faces from the database, the index, the snapshot and the log."""
        live = self._find(gallery_id)
        with live.writer:  # searches give way until the log is empty too
            receipt = self._write(live, lambda tx: writes.delete_identity(tx, gallery_id, identity_id), keyed)
            return replace(receipt, scrubbed=self._maintenance.scrub() if receipt.faces else True)

    def merge_identities(
        self, gallery_id: str, into: str, source: str, *, keyed: Keyed[Identity] | None = None
    ) -> Identity:
        """Two identities turn out to be one person: `into` gets the faces of `source`, which then is gone.
        Name and metadata of `into` stay, face ids too."""
        live = self._find(gallery_id)
        return self._write(live, lambda tx: writes.merge_identities(tx, gallery_id, into, source), keyed)

    def list_faces(
        self, gallery_id: str, identity_id: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[StoredFace]:
        """In the order of their enrollment."""
        with self._reading(gallery_id) as tx:
            owner = store.get_identity(tx, gallery_id, identity_id)
            return store.list_faces(tx, owner, cursor, validation.limit(limit))

    def get_face(self, gallery_id: str, identity_id: str, face_id: str) -> StoredFace:
        """NotFoundError `face_not_found_in_gallery`."""
        with self._reading(gallery_id) as tx:
            return store.find_face(tx, store.get_identity(tx, gallery_id, identity_id), face_id)[1]

    def face_picture(self, gallery_id: str, identity_id: str, face_id: str) -> bytes:
        """What was kept of a face's photograph, as `sphereid.faces.crops.pack` made it. NotFoundError
        `face_not_found_in_gallery`, `picture_not_found`."""
        with self._reading(gallery_id) as tx:
            store.find_face(tx, store.get_identity(tx, gallery_id, identity_id), face_id)
            return _kept(store.crops(tx, [face_id]).get(face_id))

    def portrait(self, gallery_id: str, identity_id: str) -> bytes:
        """What was kept of an identity's best photograph. NotFoundError `picture_not_found`."""
        with self._reading(gallery_id) as tx:
            return _kept(store.portrait(tx, store.get_identity(tx, gallery_id, identity_id)))

    def delete_face(
        self,
        gallery_id: str,
        identity_id: str,
        face_id: str,
        *,
        keyed: Keyed[DeleteReceipt] | None = None,
    ) -> DeleteReceipt:
        """Remove one face; its identity stays."""
        live = self._find(gallery_id)
        with live.writer:  # searches give way until the log is empty too
            receipt = self._write(
                live, lambda tx: writes.delete_face(tx, gallery_id, identity_id, face_id), keyed
            )
            return replace(receipt, scrubbed=self._maintenance.scrub())


def _kept(crop: bytes | None) -> bytes:
    if crop is None:
        raise NotFoundError(
            "picture_not_found",
            "nothing of this photograph was kept: let the gallery keep crops, then enroll",
        )
    return crop
