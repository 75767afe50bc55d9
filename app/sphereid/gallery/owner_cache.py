"""Whose the faces are that searches come up with, in memory while nothing is written."""

from collections.abc import Callable, Iterable
from typing import Final

from sphereid.gallery.matching import Ranked
from sphereid.gallery.store.faces import Found
from sphereid.gallery.types import Candidate, Gallery

MOST: Final = 10_000
"""Faces a gallery that are remembered, some 5 MB; then it begins anew."""

Owners = dict[int, Found]
"""By the number of a face."""


class FaceOwnerCache:
    """What was read of each gallery in its present state. Thread-safe.

    Every write puts a new `Gallery` in the place of the old one, and what is remembered belongs to one such
    object: whoever holds it knows of nothing written later, and whoever gets the new one begins with nothing.
    """

    def __init__(self) -> None:
        self._owners: dict[str, tuple[Gallery, Owners]] = {}

    def candidates(
        self, gallery: Gallery, ranked: list[Ranked], read: Callable[[list[int]], Owners]
    ) -> list[list[Candidate]]:
        """The candidates of each probe by their nearest faces; those that are gone meanwhile are left out.

        gallery: as it was before the search. read: asks the database for faces by number.
        """
        known = self._of(gallery)
        wanted = {number for row in ranked for _, number, _ in row}
        found = {number: face for number in wanted if (face := known.get(number)) is not None}
        if missing := sorted(wanted - found.keys()):
            fresh = read(missing)
            found |= fresh
            if len(known) + len(fresh) > MOST:
                known.clear()
            known.update(fresh)
        return [list(_named(row, found)) for row in ranked]

    def _of(self, gallery: Gallery) -> Owners:
        at, owners = self._owners.get(gallery.id, (None, {}))
        if at is not gallery:
            owners = {}
            self._owners[gallery.id] = gallery, owners
        return owners


def _named(row: Ranked, found: Owners) -> Iterable[Candidate]:
    for _, number, similarity in row:
        face = found.get(number)
        if face is not None:
            yield Candidate(face.identity.id, face.face_id, similarity, face.identity)
