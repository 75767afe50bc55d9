"""The gallery's public face: enroll, find, verify, delete; thread-safe, one per process and data folder."""

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import numpy as np
from sqlalchemy import Connection

from app.gallery import answers, audit, bulk, checks, encryption, exchange, store, writes
from app.gallery.audit import AuditLevel, Event
from app.gallery.backup import backup
from app.gallery.bulk import BulkEnrolled, NewPerson
from app.gallery.calibration import ImpostorCalibration, gallery_threshold
from app.gallery.database import Database
from app.gallery.decisions import decide, decide_together
from app.gallery.errors import (
    ConflictError,
    ContractMismatchError,
    InvalidRequestError,
    NotFoundError,
    StorageError,
)
from app.gallery.exchange import CropsOf
from app.gallery.folder import FolderLock
from app.gallery.index.kinds import IndexSetting
from app.gallery.live import CHANGING, LiveGallery
from app.gallery.maintenance import Maintenance
from app.gallery.matching import Among, candidates, similarity_to
from app.gallery.snapshot import SnapshotFolder
from app.gallery.types import (
    Candidate,
    Decision,
    DeleteReceipt,
    Duplicate,
    Enrolled,
    Gallery,
    GalleryRules,
    Identity,
    Margins,
    MetadataFilter,
    NewFace,
    Page,
    StoredAnswer,
    StoredFace,
    Strictness,
    TemplatePolicy,
    Threshold,
    ThresholdPolicy,
    Vectors,
)
from app.gallery.unknowns import Unknowns
from app.gallery.vault import Vault
from app.gallery.watchlog import WatchLog
from app.gallery.writes import Change, Keyed

log = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_GALLERY = "default"

NEAR_DUPLICATE = 0.99
"""Similarity from which two faces of one identity count as the same photograph."""


class GalleryService:
    """Galleries in a database, searched in memory.

    A write commits, is applied to the index, and then answered; writes of one gallery go one after another.
    Every method may raise StorageError. Close it to write the index snapshots.
    """

    def __init__(
        self,
        database: Database,
        data_dir: Path,
        calibrations: Mapping[str, ImpostorCalibration],
        default_rules: GalleryRules,
        lock: FolderLock,
        index: IndexSetting = "auto",
        audit_level: AuditLevel = "all",
    ) -> None:
        self._database = database
        self._snapshots = data_dir / "index"
        self._outgoing = data_dir / "outgoing"
        self._calibrations = dict(calibrations)
        self._default_rules = default_rules
        self._folder_lock = lock
        self._live: dict[str, LiveGallery] = {}
        self._galleries = threading.Lock()
        self._maintenance = Maintenance(database, lambda: list(self._live.values()), index)
        self.audit = WatchLog(database, data_dir, audit_level)
        self.unknowns = Unknowns(database, self, self._maintenance.scrub)

    @classmethod
    def open(
        cls,
        database_url: str,
        data_dir: Path,
        *,
        calibrations: Mapping[str, ImpostorCalibration] | None = None,
        default_rules: GalleryRules | None = None,
        index: IndexSetting = "auto",
        audit_level: AuditLevel = "all",
        vault: Vault | None = None,
    ) -> "GalleryService":
        """Upgrade the schema, bring every index up to the database, and make sure that `default` exists.

        database_url: SQLAlchemy's, such as `sqlite:///data/gallery.db`. data_dir: where index snapshots go;
        one process at a time may use it. calibrations: impostor calibration by embedding contract.
        audit_level: what the audit log takes in: `all`, the `writes` alone, or nothing (`off`).
        vault: encrypts embeddings and pictures at rest; StorageError where it does not fit.
        """
        rules = default_rules or GalleryRules()
        checks.rules(rules)
        lock = FolderLock(data_dir)
        try:
            database = Database(database_url, vault)
            database.upgrade()
            encryption.check(database)
            service = cls(database, data_dir, calibrations or {}, rules, lock, index, audit_level)
            service._load()
        except BaseException:
            lock.release()
            raise
        return service

    def _load(self) -> None:
        shutil.rmtree(self._outgoing, ignore_errors=True)  # of a process that died while it wrote a backup
        with self._database.reading() as tx:
            galleries: list[Gallery] = []
            cursor: str | None = None
            while True:
                page = store.list_galleries(tx, cursor, 500)
                galleries += page.items
                if (cursor := page.cursor) is None:
                    break
        for gallery in galleries:
            live = self._make_live(gallery)
            live.open()
            self._live[gallery.id] = live
        if DEFAULT_GALLERY not in self._live:
            self.create_gallery(DEFAULT_GALLERY, "Default", {}, self._default_rules)
        self._database.scrub()
        self._maintenance.start()
        self.audit.start()

    def close(self) -> None:
        """Write what snapshots are behind and let go of the folder. A second call does nothing."""
        if self._maintenance.stop():
            self.audit.close()
            self._maintenance.save_all()
            self._database.scrub()
            self._database.close()
            self._folder_lock.release()

    def check(self) -> None:
        """Raises StorageError where the gallery can't answer."""
        self._database.check()

    def backup(self, file: Path) -> None:
        """Write everything to one new file while requests go on; `app.gallery.backup.restore` reads it
        back."""
        backup(self._database, file)

    def open_backup(self) -> BinaryIO:
        """The same as an open file that has no name any more: nothing is left of it once it is closed."""
        with self._database.writing() as tx:
            audit.record(tx, [Event("snapshot")])
        self._outgoing.mkdir(exist_ok=True)
        file = self._outgoing / f"{checks.new_id()}.snapshot"
        try:
            backup(self._database, file)
            return file.open("rb")
        finally:
            file.unlink(missing_ok=True)

    # Galleries

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
        gallery_id = checks.slug(id, "gallery") if id is not None else checks.new_id()
        checks.rules(rules)
        details = checks.metadata(metadata)
        with self._galleries:
            with self._database.writing() as tx:
                gallery = store.insert_gallery(tx, gallery_id, checks.name(name, gallery_id), details, rules)
                _settle(tx, gallery, keyed, Event("gallery.create", gallery_id))
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
            return store.list_galleries(tx, cursor, checks.limit(limit))

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
                name=old.name if name is None else checks.name(name, gallery_id),
                metadata=old.metadata if metadata is None else checks.metadata(metadata),
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
                _settle(tx, receipt, keyed, Event("gallery.delete", gallery_id, None, gone))
            del self._live[gallery_id]
            live.discard()
        return replace(receipt, scrubbed=self._maintenance.scrub())

    def threshold(self, gallery_id: str) -> Threshold:
        """The limit that identify uses now."""
        return self.threshold_of(self.get_gallery(gallery_id))

    def threshold_of(self, gallery: Gallery) -> Threshold:
        """The limit that a gallery in this state uses."""
        live = self._live.get(gallery.id)
        return self._threshold(gallery, 0 if live is None else live.size())

    # Identities

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
        identity_id = checks.slug(id, "identity") if id is not None else checks.new_id()
        called, details = checks.name(name, identity_id), checks.metadata(metadata)
        live = self._find(gallery_id)
        return self._write(
            live, lambda tx: writes.create_identity(tx, gallery_id, identity_id, called, details), keyed
        )

    def get_identity(self, gallery_id: str, identity_id: str) -> Identity:
        """NotFoundError `identity_not_found`, here and wherever an identity is named."""
        self._find(gallery_id)
        with self._database.reading() as tx:
            return store.get_identity(tx, gallery_id, identity_id).identity

    def identities(self, gallery_id: str, ids: Sequence[str]) -> dict[str, Identity]:
        """Those of the ids that exist."""
        self._find(gallery_id)
        with self._database.reading() as tx:
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
        wanted = checks.metadata_filter(where or {})
        self._find(gallery_id)
        with self._database.reading() as tx:
            return store.list_identities(tx, gallery_id, cursor, checks.limit(limit), name, wanted)

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
        receipt = self._write(live, lambda tx: writes.delete_identity(tx, gallery_id, identity_id), keyed)
        return replace(receipt, scrubbed=self._maintenance.scrub() if receipt.faces else True)

    def merge_identities(
        self, gallery_id: str, into: str, source: str, *, keyed: Keyed[Identity] | None = None
    ) -> Identity:
        """Two identities turn out to be one person: `into` gets the faces of `source`, which then is gone.
        Name and metadata of `into` stay, face ids too."""
        live = self._find(gallery_id)
        return self._write(live, lambda tx: writes.merge_identities(tx, gallery_id, into, source), keyed)

    # Faces

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
        checks.slug(identity_id, "identity")
        vectors, contract = checks.new_faces(faces)
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
        vectors, contract = bulk.checked(people)
        with live.writer:
            live.ready()
            resembled: dict[str, str] = {}
            if contract is not None:
                self._fits(live, contract, vectors)
            if contract is not None and duplicates != "ignore":
                owners = [(person.id, str(face.id)) for person in people for face in person.faces]
                limit = self._threshold(live.gallery, live.size() + len(vectors)).value
                with self._database.reading() as tx:
                    nearest = candidates(live, tx, vectors, 2)
                others = bulk.resembling(nearest, vectors, [owner for owner, _ in owners], limit)
                pairs = zip(owners, others, strict=True)
                resembled = {face_id: other for (_, face_id), other in pairs if other is not None}
            if duplicates == "refuse":
                kept = [[face for face in p.faces if face.id not in resembled] for p in people]
                people = [replace(p, faces=faces) for p, faces in zip(people, kept, strict=True) if faces]
            return self._write(live, lambda tx: bulk.enroll(tx, live.gallery, people), None), resembled

    def exchange_embeddings(
        self, gallery_id: str, contract: str, embed: Callable[[Sequence[str], CropsOf], Vectors]
    ) -> Gallery:
        """Every face gets the embedding that `embed` has for its id, by the model of `contract`, in one
        write; until it is complete, the old ones answer. Searches on the way are done again."""
        live = self._find(gallery_id)
        with live.writer, live.changing_model():
            gallery = self._write(live, lambda tx: exchange.exchange(tx, live.gallery, contract, embed), None)
        self._maintenance.scrub()
        return gallery

    def known_faces(self, gallery_id: str, face_ids: Sequence[str]) -> set[str]:
        """Those of the ids that faces of this gallery have."""
        self._find(gallery_id)
        with self._database.reading() as tx:
            return bulk.known_faces(tx, gallery_id, face_ids)

    def list_faces(
        self, gallery_id: str, identity_id: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[StoredFace]:
        """In the order of their enrollment."""
        self._find(gallery_id)
        with self._database.reading() as tx:
            owner = store.get_identity(tx, gallery_id, identity_id)
            return store.list_faces(tx, owner, cursor, checks.limit(limit))

    def get_face(self, gallery_id: str, identity_id: str, face_id: str) -> StoredFace:
        """NotFoundError `face_not_found_in_gallery`."""
        self._find(gallery_id)
        with self._database.reading() as tx:
            return store.find_face(tx, store.get_identity(tx, gallery_id, identity_id), face_id)[1]

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
        receipt = self._write(
            live, lambda tx: writes.delete_face(tx, gallery_id, identity_id, face_id), keyed
        )
        return replace(receipt, scrubbed=self._maintenance.scrub())

    # Decisions

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
        checks.top(k)
        probes = checks.probes(vectors)
        asked = checks.metadata_filter(where or {})

        def decide_each(live: LiveGallery) -> tuple[list[Decision], Gallery]:
            return self._identify(live, probes, contract, k, threshold, assign_unique, asked)

        named, gallery = self._steadily(gallery_id, decide_each)
        self.audit.seen("identify", gallery_id, named, sustained=sustained)
        return named, gallery

    def _identify(
        self,
        live: LiveGallery,
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
        with self._database.reading() as tx:
            among = Among(*store.identities_having(tx, gallery_id, asked)) if asked else None
            size = live.size() if among is None else among.entries(gallery.template)
            limit = self._threshold(gallery, size, threshold)
            found = candidates(live, tx, probes, wanted, among) if len(probes) else []
            margin = gallery.ambiguity_margin
            decided: list[tuple[Decision, str | None]]
            if assign_unique:
                decided = decide_together(found, limit, margin, k=k)
            else:
                decided = [_named(decide(each, limit, margin, k=k)) for each in found]
            people = store.get_identities(tx, gallery_id, [i for _, i in decided if i is not None])
        return [d if i is None else replace(d, identity=people.get(i)) for d, i in decided], gallery

    def nearest(self, gallery_id: str, vectors: Vectors, k: int) -> list[list[Candidate]]:
        """The k nearest identities of each probe (N, D), best first, without deciding anything."""

        def search(live: LiveGallery) -> list[list[Candidate]]:
            with self._database.reading() as tx:
                return candidates(live, tx, checks.probes(vectors), checks.top(k))

        return self._steadily(gallery_id, search)

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
        probe = checks.probes(np.asarray(vector)[None])[0]

        def compare(live: LiveGallery) -> Decision:
            return self._verify(live, identity_id, probe, contract, threshold)

        decision = self._steadily(gallery_id, compare)
        self.audit.seen("verify", gallery_id, [decision], claimed=identity_id)
        return decision

    def _verify(
        self, live: LiveGallery, identity_id: str, probe: Vectors, contract: str, threshold: float | None
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

    # Idempotency

    def recall(self, key: str, fingerprint: str) -> StoredAnswer | None:
        """The answer that was stored for this key. ConflictError `idempotency_conflict` where the key came
        with another request (`fingerprint`, a digest of it)."""
        with self._database.reading() as tx:
            return answers.recall(tx, key, fingerprint)

    def remember(self, key: str, fingerprint: str, answer: StoredAnswer) -> None:
        """Keep an answer for `answers.KEPT_FOR`, in place of what the same request has there."""
        with self._database.writing() as tx:
            answers.remember(tx, key, fingerprint, answer)

    # Inside

    def reading(self) -> AbstractContextManager[Connection]:
        """A short read transaction, for the rest of the gallery's room."""
        return self._database.reading()

    def _make_live(self, gallery: Gallery) -> LiveGallery:
        return LiveGallery(
            self._database, SnapshotFolder(self._snapshots, gallery.id, self._database.vault), gallery
        )

    def _find(self, gallery_id: str) -> LiveGallery:
        live = self._live.get(gallery_id)
        if live is None:
            raise NotFoundError("gallery_not_found", f"there is no gallery {gallery_id!r}")
        return live

    def _write(self, live: LiveGallery, work: Callable[[Connection], Change[T]], keyed: Keyed[T] | None) -> T:
        """Carry out a write: commit, bring the index along, answer."""
        with live.writer:
            with self._writing(live) as tx:
                change = work(tx)
                _settle(tx, change.result, keyed, *change.events)
            if change.rebuild:
                live.catch_up()
            else:
                live.apply(change.gallery, change.removed, change.added)
        return change.result

    @contextmanager
    def _writing(self, live: LiveGallery) -> Iterator[Connection]:
        """A write to a gallery. One that the database refused may have been carried out nevertheless, so the
        index is compared with the database before its next use."""
        live.ready()
        if self._live.get(live.gallery.id) is not live:
            raise NotFoundError("gallery_not_found", f"gallery {live.gallery.id!r} was just deleted")
        try:
            with self._database.writing() as tx:
                yield tx
        except StorageError:
            live.stale = True
            raise

    def _steadily(self, gallery_id: str, work: Callable[[LiveGallery], T]) -> T:
        """Do what reads a gallery; once more where another model's embeddings took over on the way."""
        while True:
            live = self._find(gallery_id)
            before = live.contract
            if before != CHANGING:
                try:
                    result = work(live)
                except Exception:
                    if live.contract == before:
                        raise
                else:
                    if live.contract == before:
                        return result
            with live.writer:  # held until the change is complete
                pass

    def _threshold(self, gallery: Gallery, comparisons: int, fixed: float | None = None) -> Threshold:
        if fixed is not None:
            return Threshold(checks.cosine(fixed), "cosine")
        calibration = self._calibrations.get(gallery.contract or "")
        if gallery.contract is None and len(self._calibrations) == 1:
            calibration = next(iter(self._calibrations.values()))
        return gallery_threshold(gallery.policy, calibration, comparisons)

    def _fits(self, live: LiveGallery, contract: str, vectors: Vectors) -> None:
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

    def _duplicates(self, live: LiveGallery, identity_id: str, vectors: Vectors) -> list[Duplicate]:
        """At most one for each new face: the nearest that is too near. The caller holds the gallery's writer
        lock."""
        limit = self._threshold(live.gallery, live.size()).value
        with self._database.reading() as tx:
            near = candidates(live, tx, vectors, 2)
        found = []
        for row in near:
            for c in row:
                if c.similarity >= (NEAR_DUPLICATE if c.identity_id == identity_id else limit):
                    found.append(Duplicate(c.identity_id, c.face_id, c.similarity))
                    break
        return found


def _settle(tx: Connection, result: T, keyed: Keyed[T] | None, *events: Event) -> None:
    """What goes into the transaction of every write beside its own rows."""
    audit.record(tx, events)
    if keyed is not None:
        answers.remember(tx, keyed.key, keyed.fingerprint, keyed.render(result))


def _named(decision: Decision) -> tuple[Decision, str | None]:
    return decision, decision.candidates[0].identity_id if decision.outcome == "match" else None
