"""Whose face is it: searches in a gallery, and what is decided by its threshold."""

from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from sphereid.gallery import store, validation
from sphereid.gallery.errors import ContractMismatchError, InvalidRequestError
from sphereid.gallery.gallery_index import GalleryIndex
from sphereid.gallery.matching import Among, candidates, search_index, similarity_to
from sphereid.gallery.owner_cache import FaceOwnerCache, Owners
from sphereid.gallery.registry import Registry
from sphereid.gallery.thresholds.calibration import gallery_threshold
from sphereid.gallery.thresholds.decisions import decide, decide_together
from sphereid.gallery.types import Candidate, Decision, Gallery, Margins, MetadataFilter, Threshold, Vectors


class Search(Registry):
    """The part of `GalleryService` that identifies and verifies."""

    @cached_property
    def _remembered(self) -> FaceOwnerCache:
        return FaceOwnerCache()

    def identify(
        self,
        gallery_id: str,
        vectors: Vectors,
        contract: str,
        *,
        k: int = 5,
        threshold: float | None = None,
        assign_unique: bool = False,
        where: MetadataFilter | None = None,
        sustained: bool = False,
    ) -> tuple[list[Decision], Gallery]:
        """A decision for each probe (N, D), with up to k candidates, and the gallery that was searched.

        threshold: a cosine in place of the gallery's policy. assign_unique: the probes are faces of one
        photograph, in which no identity occurs twice. where: only identities with these members in their
        metadata are candidates, and a policy's promise counts their faces alone. sustained: it is one of many
        looks at a scene, which the audit log sums up.
        """
        validation.top(k)
        probes = validation.probes(vectors)
        asked = validation.metadata_filter(where or {})

        def decide_each(live: GalleryIndex) -> tuple[list[Decision], Gallery]:
            return self._identify(live, probes, contract, k, threshold, assign_unique, asked)

        named, gallery = self._retry_on_model_change(gallery_id, decide_each)
        self.audit.seen("identify", gallery_id, named, sustained=sustained)
        return named, gallery

    def _identify(
        self,
        live: GalleryIndex,
        probes: Vectors,
        contract: str,
        k: int,
        threshold: float | None,
        assign_unique: bool,
        asked: MetadataFilter,
    ) -> tuple[list[Decision], Gallery]:
        live.ready()
        gallery = live.gallery
        gallery_id = gallery.id
        self._fits(live, contract, probes)
        wanted = max(k, 2, len(probes) + 1 if assign_unique else 0)
        among = self._among(gallery_id, asked)
        size = live.size() if among is None else among.entries(gallery.template)
        limit = self._threshold(gallery, size, threshold)
        found = self._candidates(live, gallery, probes, wanted, among)
        margin = gallery.ambiguity_margin
        decided: list[tuple[Decision, str | None]]
        if assign_unique:
            decided = decide_together(found, limit, margin, k=k)
        else:
            decided = [_named(decide(each, limit, margin, k=k)) for each in found]
        people = {each.identity_id: each.identity for row in found for each in row}
        return [d if i is None else replace(d, identity=people[i]) for d, i in decided], gallery

    def _candidates(
        self, live: GalleryIndex, gallery: Gallery, probes: Vectors, k: int, among: Among | None
    ) -> list[list[Candidate]]:
        ranked = search_index(live, probes, k, among) if len(probes) else []
        if ranked is not None and gallery.template == "best":
            return self._remembered.candidates(gallery, ranked, partial(self._owners, gallery.id))
        with self._database.reading() as tx:
            return candidates(live, tx, probes, k, among, ranked)

    def _owners(self, gallery_id: str, numbers: list[int]) -> Owners:
        with self._database.reading() as tx:
            return store.found_faces(tx, gallery_id, numbers)

    def nearest(self, gallery_id: str, vectors: Vectors, k: int) -> list[list[Candidate]]:
        """The k nearest identities of each probe (N, D), best first, without deciding anything."""

        probes, wanted = validation.probes(vectors), validation.top(k)
        return self._retry_on_model_change(gallery_id, lambda live: self._nearest(live, probes, wanted))

    def _nearest(self, live: GalleryIndex, probes: Vectors, k: int) -> list[list[Candidate]]:
        ranked = search_index(live, probes, k)
        with self._database.reading() as tx:
            return candidates(live, tx, probes, k, ranked=ranked)

    def _among(self, gallery_id: str, asked: MetadataFilter) -> Among | None:
        if not asked:
            return None
        with self._database.reading() as tx:
            return Among(*store.identities_having(tx, gallery_id, asked))

    def verify(
        self,
        gallery_id: str,
        identity_id: str,
        vector: "np.ndarray[Any, np.dtype[np.float32]]",
        contract: str,
        *,
        threshold: float | None = None,
    ) -> Decision:
        """Is this probe (D,) that person? Compared with all its faces, by the gallery's template.

        An `fpir` policy here promises that at most its target of wrong claims to this identity pass.
        """
        probe = validation.probes(np.asarray(vector)[None])[0]

        def compare(live: GalleryIndex) -> Decision:
            return self._verify(live, identity_id, probe, contract, threshold)

        decision = self._retry_on_model_change(gallery_id, compare)
        self.audit.seen("verify", gallery_id, [decision], claimed=identity_id)
        return decision

    def _verify(
        self, live: GalleryIndex, identity_id: str, probe: Vectors, contract: str, threshold: float | None
    ) -> Decision:
        gallery = live.gallery
        gallery_id = gallery.id
        self._fits(live, contract, probe[None])
        with self._database.reading() as tx:
            owner = store.get_identity(tx, gallery_id, identity_id)
            numbers, faces = store.vectors_of_identities(tx, [owner.number])
            comparisons = 1 if gallery.template == "mean" else len(numbers)
            limit = self._threshold(gallery, comparisons, threshold)
            if not len(numbers):
                return Decision("unknown", "empty_gallery", limit, (), Margins(None, None))
            similarity = similarity_to(gallery.template, probe, faces)
            nearest = int(numbers[np.argmax(faces @ probe)])
            face_id = store.found_faces(tx, gallery_id, [nearest])[nearest].face_id
        decision = decide([Candidate(identity_id, face_id, similarity)], limit, 0.0)
        return replace(decision, identity=owner.identity) if decision.outcome == "match" else decision

    def threshold(self, gallery_id: str) -> Threshold:
        """The limit that identify uses now."""
        return self.threshold_of(self._find(gallery_id).gallery)

    def threshold_of(self, gallery: Gallery) -> Threshold:
        """The limit that a gallery in this state uses."""
        live = self._live.get(gallery.id)
        return self._threshold(gallery, 0 if live is None else live.size())

    def _threshold(self, gallery: Gallery, comparisons: int, fixed: float | None = None) -> Threshold:
        if fixed is not None:
            return Threshold(validation.cosine(fixed), "cosine")
        return gallery_threshold(gallery.policy, self._calibrations.get(gallery.contract), comparisons)

    def _fits(self, live: GalleryIndex, contract: str, vectors: Vectors) -> None:
        gallery = live.gallery
        if gallery.contract is not None and contract != gallery.contract:
            raise ContractMismatchError(
                f"gallery {gallery.id!r} holds embeddings of contract {gallery.contract}, these are "
                f"{contract}: serve the model that enrolled it, or enroll the photographs into a new gallery "
                "with this model"
            )
        if live.dimension is not None and len(vectors) and vectors.shape[1] != live.dimension:
            raise InvalidRequestError(
                f"embeddings of contract {contract} have {live.dimension} numbers, not {vectors.shape[1]}"
            )


def _named(decision: Decision) -> tuple[Decision, str | None]:
    return decision, decision.candidates[0].identity_id if decision.outcome == "match" else None
