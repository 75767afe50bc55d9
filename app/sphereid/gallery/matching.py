"""From probes to candidates: the nearest identities of a gallery, by the rule of its template."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from sphereid.gallery import store
from sphereid.gallery.gallery_index import GalleryIndex
from sphereid.gallery.index.ports import Keys, Similarities
from sphereid.gallery.store.tables import ORDINAL_BITS
from sphereid.gallery.thresholds.decisions import template_of, top_k_mean
from sphereid.gallery.types import Candidate, TemplatePolicy, Vectors

Ranked = list[tuple[int, int, float]]
"""(identity number, entry key, similarity), best first, each identity once."""


SCAN = 5000
"""Faces of the identities asked for up to which all of them are compared; beyond it the index is searched
until enough of those that it finds are among them."""


@dataclass(frozen=True, slots=True, eq=False)
class Among:
    """The identities that are looked for: numbers (I,), rising, and how many faces they have together."""

    numbers: Keys
    faces: int

    def entries(self, template: TemplatePolicy) -> int:
        """How many comparisons a probe makes with them."""
        return len(self.numbers) if template == "mean" else self.faces

    def has(self, identities: Keys) -> NDArray[np.bool_]:
        """Which of some identity numbers, of any shape, are among them."""
        if not len(self.numbers):
            return np.zeros(identities.shape, np.bool_)
        places = np.searchsorted(self.numbers, identities).clip(max=len(self.numbers) - 1)
        return np.asarray(self.numbers[places] == identities)


def search_index(
    live: GalleryIndex, probes: Vectors, k: int, among: Among | None = None
) -> list[Ranked] | None:
    """What the index alone says about the k nearest identities, for `candidates`; None where it takes the
    faces themselves. Do it before the transaction: a search may take long, and who deletes waits for
    transactions."""
    if live.gallery.template == "top_k_mean" or (among is not None and among.faces <= SCAN):
        return None
    return _nearest_identities(live, probes, k, among)


def candidates(
    live: GalleryIndex,
    tx: Connection,
    probes: Vectors,
    k: int,
    among: Among | None = None,
    ranked: list[Ranked] | None = None,
) -> list[list[Candidate]]:
    """The k nearest identities of each probe, best first; fewer where the gallery has fewer.

    best: the identity's nearest face. mean: the mean of its faces. top_k_mean: the mean of its nearest few.
    among: only these identities. ranked: what `search_index` said.
    """
    template = live.gallery.template
    if among is not None and among.faces <= SCAN:
        return _by_comparing_all(live, tx, probes, k, among)
    if template == "top_k_mean":
        return [_by_top_k_mean(live, tx, probe, k, among) for probe in probes]
    if ranked is None:
        ranked = _nearest_identities(live, probes, k, among)
    if template == "mean":
        return [_by_mean(live, tx, probe, row) for probe, row in zip(probes, ranked, strict=True)]
    found = store.found_faces(tx, live.gallery.id, [key for row in ranked for _, key, _ in row])
    return [[_candidate(found[key], s) for _, key, s in row if key in found] for row in ranked]


def similarity_to(template: TemplatePolicy, probe: Vectors, faces: Vectors) -> float:
    """Similarity of a probe (D,) with an identity by all its faces (F, D), F >= 1."""
    if template == "mean":
        return float(np.clip(template_of(faces) @ probe, -1, 1))
    similarities = np.clip(faces @ probe, -1, 1)
    return float(similarities.max()) if template == "best" else top_k_mean(similarities)


def _candidate(face: store.Found, similarity: float) -> Candidate:
    return Candidate(face.identity.id, face.face_id, similarity, face.identity)


def _by_comparing_all(
    live: GalleryIndex, tx: Connection, probes: Vectors, k: int, among: Among
) -> list[list[Candidate]]:
    """Every face of the identities asked for, from the database."""
    faces = _faces_by_identity(tx, among.numbers.tolist())
    rows: list[Ranked] = []
    for probe in probes:
        row = [
            (
                number,
                int(keys[np.argmax(vectors @ probe)]),
                similarity_to(live.gallery.template, probe, vectors),
            )
            for number, (keys, vectors) in faces.items()
        ]
        rows.append(sorted(row, key=lambda entry: -entry[2])[:k])
    found = store.found_faces(tx, live.gallery.id, [key for row in rows for _, key, _ in row])
    return [[_candidate(found[key], s) for _, key, s in row if key in found] for row in rows]


def _nearest_identities(
    live: GalleryIndex, probes: Vectors, k: int, among: Among | None = None
) -> list[Ranked]:
    """Search ever more entries until every probe has k identities or all entries were seen."""
    fetch = max(4 * k, 16)
    while True:
        similarities, keys = live.search(probes, fetch)
        width = keys.shape[1]
        if among is not None:
            keys = np.where(among.has(keys >> ORDINAL_BITS), keys, -1)
        ranked = [_first_of_each(s, row, k) for s, row in zip(similarities, keys, strict=True)]
        if width < fetch or all(len(row) >= k for row in ranked):
            return ranked
        fetch *= 4


def _first_of_each(similarities: Similarities, keys: Keys, k: int) -> Ranked:
    ranked: Ranked = []
    seen: set[int] = set()
    for similarity, key in zip(similarities.tolist(), keys.tolist(), strict=True):
        identity = key >> ORDINAL_BITS
        if key >= 0 and identity not in seen:
            seen.add(identity)
            ranked.append((identity, key, min(max(similarity, -1.0), 1.0)))
            if len(ranked) == k:
                break
    return ranked


def _by_mean(live: GalleryIndex, tx: Connection, probe: Vectors, ranked: Ranked) -> list[Candidate]:
    """Name each mean, and the face of it that is nearest."""
    faces = _faces_by_identity(tx, [number for number, _, _ in ranked])
    best = {n: int(keys[np.argmax(vectors @ probe)]) for n, (keys, vectors) in faces.items()}
    found = store.found_faces(tx, live.gallery.id, list(best.values()))
    return [_candidate(found[best[n]], s) for n, _, s in ranked if n in best and best[n] in found]


def _by_top_k_mean(
    live: GalleryIndex, tx: Connection, probe: Vectors, k: int, among: Among | None
) -> list[Candidate]:
    """No identity's top-k mean exceeds its best face, so identities in the order of their best face can stop
    as soon as the k-th mean reaches the best face of those not yet looked at."""
    look = max(2 * k, 10)
    while True:
        (ranked,) = _nearest_identities(live, probe[None], look, among)
        faces = _faces_by_identity(tx, [number for number, _, _ in ranked])
        means = {n: similarity_to("top_k_mean", probe, v) for n, (_, v) in faces.items()}
        order = sorted((row for row in ranked if row[0] in means), key=lambda row: -means[row[0]])[:k]
        if len(ranked) < look or (len(order) == k and means[order[-1][0]] >= ranked[-1][2]):
            break
        look *= 2
    found = store.found_faces(tx, live.gallery.id, [key for _, key, _ in order])
    return [_candidate(found[key], means[n]) for n, key, _ in order if key in found]


def _faces_by_identity(tx: Connection, numbers: list[int]) -> dict[int, tuple[Keys, Vectors]]:
    keys, vectors = store.vectors_of_identities(tx, numbers)
    places: dict[int, list[int]] = defaultdict(list)
    for place, key in enumerate(keys.tolist()):
        places[key >> ORDINAL_BITS].append(place)
    return {number: (keys[at], vectors[at]) for number, at in places.items()}
