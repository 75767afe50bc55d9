"""The gallery's public face: enroll, find, verify, delete; thread-safe, one per process and data folder."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from sphereid.gallery import audit, key_rotation, store, validation
from sphereid.gallery.audit import AuditLevel, Event
from sphereid.gallery.enrollment import Enrollment
from sphereid.gallery.galleries import DEFAULT_GALLERY, Galleries
from sphereid.gallery.index.kinds import IndexSetting
from sphereid.gallery.people import People
from sphereid.gallery.store import answers
from sphereid.gallery.store.backup import backup
from sphereid.gallery.store.database import Database
from sphereid.gallery.thresholds.calibration import ImpostorCalibration
from sphereid.gallery.types import Gallery, GalleryRules, StoredAnswer
from sphereid.gallery.unknowns import Unknowns
from sphereid.storage.folder_lock import FolderLock
from sphereid.storage.vault import Vault


class GalleryService(Galleries, People, Enrollment):
    """Galleries in a database, searched in memory.

    A write commits, is applied to the index, and then answered; writes of one gallery go one after another.
    Every method may raise StorageError. Close it to write the index snapshots. What it does to galleries,
    people and faces stands in its bases, a subject each; here it is opened, saved and closed.
    """

    def __init__(
        self,
        database: Database,
        data_dir: Path,
        calibrations: Mapping[str | None, ImpostorCalibration],
        default_rules: GalleryRules,
        lock: FolderLock,
        index: IndexSetting = "auto",
        audit_level: AuditLevel = "all",
    ) -> None:
        super().__init__(database, data_dir, calibrations, index, audit_level)
        self._outgoing = data_dir / "outgoing"
        self._default_rules = default_rules
        self._folder_lock = lock
        self.unknowns = Unknowns(database, self, self._maintenance.scrub)

    @classmethod
    def open(
        cls,
        database_url: str,
        data_dir: Path,
        *,
        calibrations: Mapping[str | None, ImpostorCalibration] | None = None,
        default_rules: GalleryRules | None = None,
        index: IndexSetting = "auto",
        audit_level: AuditLevel = "all",
        vault: Vault | None = None,
    ) -> "GalleryService":
        """Upgrade the schema, bring every index up to the database, and make sure that `default` exists.

        database_url: SQLAlchemy's, such as `sqlite:///data/gallery.db`. data_dir: where index snapshots go;
        one process at a time may use it. calibrations: impostor calibration by embedding contract, and under
        None that of galleries which hold nothing yet.
        audit_level: what the audit log takes in: `all`, the `writes` alone, or nothing (`off`).
        vault: encrypts embeddings and pictures at rest; StorageError where it does not fit.
        """
        rules = default_rules or GalleryRules()
        validation.rules(rules)
        lock = FolderLock(data_dir)
        try:
            database = Database(database_url, vault)
            database.upgrade()
            key_rotation.check(database)
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
        """Write everything to one new file while requests go on; `store.backup.restore` reads it back."""
        backup(self._database, file)

    def open_backup(self) -> BinaryIO:
        """The same as an open file that has no name any more: nothing is left of it once it is closed."""
        with self._database.writing() as tx:
            audit.record(tx, [Event("snapshot")])
        self._outgoing.mkdir(exist_ok=True)
        file = self._outgoing / f"{validation.new_id()}.snapshot"
        try:
            backup(self._database, file)
            return file.open("rb")
        finally:
            file.unlink(missing_ok=True)

    def recall(self, key: str, fingerprint: str) -> StoredAnswer | None:
        """The answer that was stored for this key. ConflictError `idempotency_conflict` where the key came
        with another request (`fingerprint`, a digest of it)."""
        with self._database.reading() as tx:
            return answers.recall(tx, key, fingerprint)

    def remember(self, key: str, fingerprint: str, answer: StoredAnswer) -> None:
        """Keep an answer for `answers.KEPT_FOR`, in place of what the same request has there."""
        with self._database.writing() as tx:
            answers.remember(tx, key, fingerprint, answer)
