"""The galleries themselves: made, listed, set and deleted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sphereid.gallery import store, validation, writes
from sphereid.gallery.audit import Event
from sphereid.gallery.errors import ConflictError
from sphereid.gallery.registry import Registry, settle
from sphereid.gallery.types import (
    DeleteReceipt,
    Gallery,
    GalleryRules,
    Page,
    Strictness,
    TemplatePolicy,
    ThresholdPolicy,
)
from sphereid.gallery.writes import Keyed

DEFAULT_GALLERY = "default"


class Galleries(Registry):
    """The part of `GalleryService` that is about galleries as wholes."""

    def create_gallery(
        self,
        id: str | None,
        name: str | None,
        metadata: Mapping[str, Any],
        rules: GalleryRules,
        *,
        keyed: Keyed[Gallery] | None = None,
    ) -> Gallery:
        """A new, empty gallery. ConflictError `gallery_exists`.

        keyed: here and in every write: store its answer with its Idempotency-Key in the same transaction.
        """
        gallery_id = validation.slug(id, "gallery") if id is not None else validation.new_id()
        validation.rules(rules)
        details = validation.metadata(metadata)
        with self._galleries:
            with self._database.writing() as tx:
                gallery = store.insert_gallery(
                    tx, gallery_id, validation.name(name, gallery_id), details, rules
                )
                settle(tx, gallery, keyed, Event("gallery.create", gallery_id))
            live = self._make_live(gallery)
            live.stale = False
            self._live[gallery_id] = live
        return gallery

    def get_gallery(self, gallery_id: str) -> Gallery:
        """NotFoundError `gallery_not_found`, here and wherever a gallery is named."""
        return self._find(gallery_id).gallery

    def list_galleries(self, *, cursor: str | None = None, limit: int = 50) -> Page[Gallery]:
        """By rising id."""
        with self._database.reading() as tx:
            return store.list_galleries(tx, cursor, validation.limit(limit))

    def update_gallery(
        self,
        gallery_id: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        policy: ThresholdPolicy | None = None,
        ambiguity_margin: float | None = None,
        template: TemplatePolicy | None = None,
        keep_crops: bool | None = None,
        quality: Strictness | None = None,
        keyed: Keyed[Gallery] | None = None,
    ) -> Gallery:
        """Change what is given. Another `template` rebuilds the index before it is answered; without
        `keep_crops` those that were kept are deleted."""
        live = self._find(gallery_id)
        with live.writer:
            old = live.gallery
            new = replace(
                old,
                name=old.name if name is None else validation.name(name, gallery_id),
                metadata=old.metadata if metadata is None else validation.metadata(metadata),
                policy=policy or old.policy,
                ambiguity_margin=old.ambiguity_margin if ambiguity_margin is None else ambiguity_margin,
                template=template or old.template,
                keep_crops=old.keep_crops if keep_crops is None else keep_crops,
                quality=quality or old.quality,
            )
            gallery = self._write(live, lambda tx: writes.update_gallery(tx, old, new), keyed)
        if old.keep_crops and not gallery.keep_crops:
            self._maintenance.scrub()
        return gallery

    def delete_gallery(self, gallery_id: str, *, keyed: Keyed[DeleteReceipt] | None = None) -> DeleteReceipt:
        """Remove it with all that it holds. `default` stays: ConflictError `gallery_protected`."""
        if gallery_id == DEFAULT_GALLERY:
            raise ConflictError(
                "gallery_protected", "the gallery 'default' always exists; delete its identities"
            )
        live = self._find(gallery_id)
        with live.writer, self._galleries:
            with self._writing(live) as tx:
                receipt = DeleteReceipt(live.gallery.identities, live.gallery.faces, None)
                store.delete_gallery(tx, gallery_id)
                gone = {"identities": receipt.identities, "faces": receipt.faces}
                settle(tx, receipt, keyed, Event("gallery.delete", gallery_id, None, gone))
            del self._live[gallery_id]
            live.discard()
        return replace(receipt, scrubbed=self._maintenance.scrub())
