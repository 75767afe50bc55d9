"""A gallery as the video room asks it."""

from collections.abc import Mapping, Sequence
from typing import Any

from sphereid.faces.types import FloatArray
from sphereid.gallery.errors import ContractMismatchError
from sphereid.gallery.service import GalleryService
from sphereid.gallery.types import Decision, Identity

_CANDIDATES = 5


class GalleryMatcher:
    """The `Matcher` of one gallery of a `GalleryService`."""

    def __init__(self, service: GalleryService, gallery_id: str, contract: str) -> None:
        """Raises NotFoundError, or ContractMismatchError when another model filled the gallery."""
        gallery = service.get_gallery(gallery_id)
        if gallery.contract not in (None, contract):
            raise ContractMismatchError(
                f"gallery {gallery_id!r} was filled with another model (contract {gallery.contract}, this "
                f"one has {contract}): use that model, or enroll anew"
            )
        self._service = service
        self._gallery_id = gallery_id
        self._contract = contract

    def identify(self, vectors: FloatArray) -> Sequence[Decision]:
        """Decisions for (N, D) float32 rows of L2 norm 1, each by itself; N may be 0."""
        if not len(vectors):
            return ()
        decisions, _ = self._service.identify(
            self._gallery_id, vectors, self._contract, k=_CANDIDATES, sustained=True
        )
        return decisions

    def identities(self, ids: Sequence[str]) -> Mapping[str, Identity]:
        """The identities of these ids; ids that are gone are left out."""
        return self._service.identities(self._gallery_id, ids)

    def about(self) -> dict[str, Any]:
        """The gallery as results name it."""
        gallery = self._service.get_gallery(self._gallery_id)
        threshold = self._service.threshold(self._gallery_id)
        return {
            "gallery": {"id": gallery.id, "revision": gallery.revision, "faces": gallery.faces},
            "threshold": {
                "value": round(threshold.value, 4),
                "policy": threshold.policy,
                "target": threshold.target,
            },
        }
