"""The inbox of a gallery: faces that nobody was named for, kept where the gallery allows it, until somebody
names or discards them."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    Connection,
    CursorResult,
    ForeignKey,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
)
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Double

from sphereid.gallery import audit, store, validation
from sphereid.gallery.audit import Event
from sphereid.gallery.errors import InvalidRequestError, NotFoundError
from sphereid.gallery.store.database import Database
from sphereid.gallery.store.tables import FACES, Base, Sealed, UtcDateTime
from sphereid.gallery.types import Enrolled, Gallery, NewFace, Threshold, Vectors

MOST: Final = 2000
"""Faces that an inbox may be allowed to hold; all pairs of them are compared to find out who is who."""
LONGEST: Final = timedelta(days=365)
REPEATED: Final = 0.99
"""Similarity from which a face counts as the same photograph as one that is kept; it is not kept twice."""


class InboxRow(Base):
    """What a gallery allows to be kept of unknown faces; no row, no inbox."""

    __tablename__ = "inboxes"

    gallery_id: Mapped[str] = mapped_column(ForeignKey("galleries.id", ondelete="CASCADE"), primary_key=True)
    most: Mapped[int]
    days: Mapped[int]


class UnknownRow(Base):
    """A face that nobody was named for. picture: the same for all faces of one photograph."""

    __tablename__ = "unknowns"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    gallery_id: Mapped[str] = mapped_column(ForeignKey("galleries.id", ondelete="CASCADE"), index=True)
    contract: Mapped[str] = mapped_column(String(128))
    vector: Mapped[bytes] = mapped_column(Sealed)
    quality: Mapped[float] = mapped_column(Double)
    detection_score: Mapped[float] = mapped_column(Double)
    source: Mapped[str | None] = mapped_column(String(300))
    image: Mapped[bytes] = mapped_column(Sealed)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    picture: Mapped[str | None] = mapped_column(String(64))


INBOXES = cast(Table, InboxRow.__table__)
UNKNOWNS = cast(Table, UnknownRow.__table__)
_INBOX = select(INBOXES).where(INBOXES.c.gallery_id == bindparam("gallery"))


@dataclass(frozen=True, slots=True)
class InboxRules:
    """keep: whether unknown faces are kept at all. most: faces, the oldest go first. days: how long."""

    keep: bool = False
    most: int = 500
    days: int = 30


@dataclass(frozen=True, slots=True)
class KeptFace:
    """A face of the inbox; its embedding and its picture stay inside. seen_at: when it was kept."""

    id: str
    quality: float
    detection_score: float
    source: str | None
    seen_at: datetime


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """Faces of the inbox that look like one person, the best first. center: (D,) float32 of L2 norm 1.
    threshold: the mean similarity from which faces counted as one person."""

    faces: tuple[KeptFace, ...]
    contract: str
    center: NDArray[np.float32]
    threshold: Threshold


class Galleries(Protocol):
    """What the inbox asks of the galleries."""

    def get_gallery(self, gallery_id: str) -> Gallery: ...

    def threshold_of(self, gallery: Gallery) -> Threshold: ...

    def enroll(
        self,
        gallery_id: str,
        identity_id: str,
        faces: Sequence[NewFace],
        *,
        create: bool = False,
        name: str | None = None,
    ) -> Enrolled: ...


class Unknowns:
    """The inboxes of all galleries. Thread-safe. Every method raises NotFoundError `gallery_not_found` where
    there is no such gallery, and StorageError.

    An unknown face keeps its id when it is named: after a crash between the enrollment and the removal from
    the inbox, it is seen to be enrolled and removed.
    """

    def __init__(self, database: Database, galleries: Galleries, scrub: Callable[[], bool]) -> None:
        self._database = database
        self._galleries = galleries
        self._scrub = scrub
        # By gallery, with when that was made: another one may take its id. A lock keeps what was read before
        # a change from being written here after it.
        self._known: dict[str, tuple[datetime, InboxRules]] = {}
        self._changing = threading.Lock()

    def rules(self, gallery_id: str) -> InboxRules:
        """What the gallery allows."""
        known = self.known_rules(gallery_id)
        if known is not None:
            return known
        with self._changing, self._database.reading() as tx:
            return self._know(gallery_id, _rules(tx, gallery_id))

    def known_rules(self, gallery_id: str) -> InboxRules | None:
        """What the gallery allows, where that is in memory: every identification asks."""
        made_at, rules = self._known.get(gallery_id, (None, None))
        return rules if made_at == self._galleries.get_gallery(gallery_id).created_at else None

    def _know(self, gallery_id: str, rules: InboxRules) -> InboxRules:
        self._known[gallery_id] = self._galleries.get_gallery(gallery_id).created_at, rules
        return rules

    def set_rules(
        self,
        gallery_id: str,
        *,
        keep: bool | None = None,
        most: int | None = None,
        days: int | None = None,
    ) -> InboxRules:
        """Change what is given. Faces beyond the new bounds, or all where none may be kept, are deleted."""
        self._galleries.get_gallery(gallery_id)
        given: dict[str, Any] = {"keep": keep, "most": most, "days": days}
        with self._changing:
            rules, gone = self._change_rules(gallery_id, {k: v for k, v in given.items() if v is not None})
        self._wipe(gone)
        return rules

    def _change_rules(self, gallery_id: str, given: Mapping[str, Any]) -> tuple[InboxRules, int]:
        """The new rules, and how many faces went."""
        self._known.pop(gallery_id, None)
        with self._database.writing() as tx:
            rules = replace(_rules(tx, gallery_id), **given)
            if not (1 <= rules.most <= MOST and 1 <= rules.days <= LONGEST.days):
                raise InvalidRequestError(
                    f"an inbox keeps 1 to {MOST} faces for 1 to {LONGEST.days} days, asked for {rules.most} "
                    f"faces and {rules.days} days"
                )
            tx.execute(delete(INBOXES).where(INBOXES.c.gallery_id == gallery_id))
            if rules.keep:
                tx.execute(insert(INBOXES).values(gallery_id=gallery_id, most=rules.most, days=rules.days))
            gone = _prune(tx, gallery_id, rules)
            audit.record(tx, [Event("unknowns.rules", gallery_id, details=asdict(rules))])
        return self._know(gallery_id, rules), gone

    def keep(self, gallery_id: str, faces: Sequence[NewFace], *, one_picture: bool = False) -> int:
        """Keep unknown faces, each with its `crop`; how many were. None are where the gallery does not allow
        it, and a photograph that is there already is not kept again.

        one_picture: they are of one photograph, where nobody is twice.
        """
        faces = [face for face in faces if face.crop is not None]
        if not faces:
            return 0
        vectors, contract = validation.new_faces(faces)
        with self._database.writing() as tx:
            rules = _rules(tx, gallery_id)
            if not rules.keep:
                return 0
            query = select(UNKNOWNS.c.vector).where(
                UNKNOWNS.c.gallery_id == gallery_id, UNKNOWNS.c.contract == contract
            )
            known = _unpack(tx.execute(query).scalars().all())
            picture = validation.new_id() if one_picture else None
            rows = []
            for face, vector in zip(faces, vectors, strict=True):
                if len(known) and float((known @ vector).max()) >= REPEATED:
                    continue
                known = np.vstack([known, vector]) if len(known) else vector[None]
                rows.append(
                    {
                        "id": validation.new_id(),
                        "gallery_id": gallery_id,
                        "contract": contract,
                        "vector": np.asarray(vector, dtype="<f4").tobytes(),
                        "quality": face.quality,
                        "detection_score": face.detection_score,
                        "source": face.source,
                        "image": face.crop,
                        "seen_at": store.now(),
                        "picture": picture,
                    }
                )
            if rows:
                tx.execute(insert(UNKNOWNS), rows)
            gone = _prune(tx, gallery_id, rules)
        self._wipe(gone)
        return len(rows)

    def clusters(self, gallery_id: str) -> list[Cluster]:
        """The faces of the inbox by person: those that the gallery's own threshold would take for one. The
        largest cluster first."""
        gallery = self._galleries.get_gallery(gallery_id)
        with self._database.writing() as tx:
            gone = _prune(tx, gallery_id, _rules(tx, gallery_id))
            query = select(*(c for c in UNKNOWNS.c if c.name != "image"))
            rows = list(tx.execute(query.where(UNKNOWNS.c.gallery_id == gallery_id).order_by(UNKNOWNS.c.id)))
        self._wipe(gone)
        found: list[Cluster] = []
        for contract in dict.fromkeys(row.contract for row in rows):
            mine = [row for row in rows if row.contract == contract]
            vectors = _unpack([row.vector for row in mine])
            # A gallery without faces has no contract yet: the similarities are those of the inbox's model.
            limit = self._galleries.threshold_of(replace(gallery, contract=gallery.contract or contract))
            labels = cluster(vectors, limit.value, [row.picture for row in mine])
            for label in np.unique(labels):
                places = np.flatnonzero(labels == label)
                center = vectors[places].mean(axis=0)
                center /= max(float(np.linalg.norm(center)), 1e-12)
                members = sorted((_kept(mine[i]) for i in places), key=lambda face: -face.quality)
                found.append(Cluster(tuple(members), contract, center, limit))
        return sorted(found, key=lambda c: (-len(c.faces), c.faces[0].id))

    def picture(self, gallery_id: str, face_id: str) -> bytes:
        """What was kept of the photograph, as `sphereid.faces.crops.pack` made it. NotFoundError
        `unknown_not_found`."""
        self._galleries.get_gallery(gallery_id)
        with self._database.reading() as tx:
            query = select(UNKNOWNS.c.image).where(
                UNKNOWNS.c.gallery_id == gallery_id, UNKNOWNS.c.id == face_id
            )
            image = tx.execute(query).scalar()
        if image is None:
            raise _gone([face_id])
        return bytes(image)

    def name(
        self, gallery_id: str, face_ids: Sequence[str], identity_id: str, name: str | None = None
    ) -> Enrolled:
        """Enroll faces of the inbox for an identity, which is made where it is missing, and take them out.

        Raises NotFoundError `unknown_not_found` where one of them is gone, ContractMismatchError where they
        come from another model than the gallery's.
        """
        self._galleries.get_gallery(gallery_id)
        ids = list(dict.fromkeys(face_ids))
        with self._database.writing() as tx:
            _forget_enrolled(tx, gallery_id)
            rows = _rows(tx, gallery_id, ids)
        faces = [
            NewFace(
                vector=_unpack([row.vector])[0],
                contract=row.contract,
                quality=row.quality,
                detection_score=row.detection_score,
                source=row.source,
                id=row.id,
                crop=row.image,
            )
            for row in rows
        ]
        enrolled = self._galleries.enroll(gallery_id, identity_id, faces, create=True, name=name)
        with self._database.writing() as tx:
            gone = _delete(tx, gallery_id, ids)
        self._wipe(gone)
        return enrolled

    def discard(self, gallery_id: str, face_ids: Sequence[str] | None = None) -> tuple[int, bool]:
        """Delete faces of the inbox, all of them with None: how many, and whether nothing of them is left in
        any file yet (see `DeleteReceipt.scrubbed`). Raises NotFoundError `unknown_not_found`."""
        self._galleries.get_gallery(gallery_id)
        with self._database.writing() as tx:
            if face_ids is not None:
                _rows(tx, gallery_id, list(dict.fromkeys(face_ids)))
            gone = _delete(tx, gallery_id, face_ids)
            audit.record(tx, [Event("unknowns.discard", gallery_id, details={"faces": gone})])
        return gone, self._wipe(gone)

    def _wipe(self, gone: int) -> bool:
        return self._scrub() if gone else True


def cluster(vectors: Vectors, threshold: float, pictures: Sequence[str | None]) -> NDArray[np.int64]:
    """Which of (N, D) unit vectors belong together: (N,) labels from 1.

    Agglomerative clustering with average linkage: two groups become one while the mean cosine of their pairs
    reaches `threshold` (Sokal and Michener, 1958). Other than single linkage it does not chain people
    together through one blurred face. Two of the same of N `pictures`, unless that is None, are never one.
    """
    count = len(vectors)
    if count < 2:
        return np.ones(count, np.int64)
    from scipy.cluster.hierarchy import fcluster, linkage  # slow to load, and few galleries have an inbox

    distances = np.clip(1.0 - vectors @ vectors.T, 0.0, 2.0).astype(np.float64)
    of = np.array([picture or "" for picture in pictures])
    together = (of[:, None] == of) & (of != "")
    distances[together] = 4.0 * count**2  # the mean of no two groups with such a pair is near
    condensed = distances[np.triu_indices(count, 1)]
    labels = fcluster(linkage(condensed, "average"), max(1.0 - threshold, 0.0) + 1e-9, "distance")
    return np.asarray(labels, np.int64)


def _rules(tx: Connection, gallery_id: str) -> InboxRules:
    row = tx.execute(_INBOX, {"gallery": gallery_id}).first()
    return InboxRules() if row is None else InboxRules(True, row.most, row.days)


def _prune(tx: Connection, gallery_id: str, rules: InboxRules) -> int:
    """Delete what is enrolled, too old or too much; all of it where nothing may be kept."""
    if not rules.keep:
        return _delete(tx, gallery_id, None)
    u = UNKNOWNS.c
    gone = _forget_enrolled(tx, gallery_id)
    limit = store.now() - timedelta(days=rules.days)
    gone += _count(tx, delete(UNKNOWNS).where(u.gallery_id == gallery_id, u.seen_at < limit))
    newest = select(u.id).where(u.gallery_id == gallery_id).order_by(u.seen_at.desc(), u.id.desc())
    surplus = tx.execute(newest.offset(rules.most)).scalars().all()
    return gone + (_delete(tx, gallery_id, surplus) if surplus else 0)


def _forget_enrolled(tx: Connection, gallery_id: str) -> int:
    named = select(FACES.c.id).where(FACES.c.gallery_id == gallery_id)
    return _count(tx, delete(UNKNOWNS).where(UNKNOWNS.c.gallery_id == gallery_id, UNKNOWNS.c.id.in_(named)))


def _rows(tx: Connection, gallery_id: str, ids: Sequence[str]) -> list[Any]:
    found: dict[str, Any] = {}
    for start in range(0, len(ids), store.BATCH):
        some = list(ids[start : start + store.BATCH])
        query = select(UNKNOWNS).where(UNKNOWNS.c.gallery_id == gallery_id, UNKNOWNS.c.id.in_(some))
        found |= {row.id: row for row in tx.execute(query)}
    if missing := [face_id for face_id in ids if face_id not in found]:
        raise _gone(missing)
    return [found[face_id] for face_id in ids]


def _delete(tx: Connection, gallery_id: str, ids: Sequence[str] | None) -> int:
    mine = UNKNOWNS.c.gallery_id == gallery_id
    if ids is None:
        return _count(tx, delete(UNKNOWNS).where(mine))
    return sum(
        _count(tx, delete(UNKNOWNS).where(mine, UNKNOWNS.c.id.in_(list(ids[start : start + store.BATCH]))))
        for start in range(0, len(ids), store.BATCH)
    )


def _count(tx: Connection, statement: Any) -> int:
    return cast("CursorResult[Any]", tx.execute(statement)).rowcount


def _kept(row: Any) -> KeptFace:
    return KeptFace(row.id, row.quality, row.detection_score, row.source, row.seen_at)


def _unpack(vectors: Sequence[bytes]) -> Vectors:
    flat = np.frombuffer(b"".join(vectors), dtype="<f4").astype(np.float32)
    return flat.reshape(len(vectors), -1) if vectors else flat.reshape(0, 0)


def _gone(ids: Sequence[str]) -> NotFoundError:
    return NotFoundError(
        "unknown_not_found",
        f"{len(ids)} of these faces {'is' if len(ids) == 1 else 'are'} not in the inbox any more: look again",
    )
