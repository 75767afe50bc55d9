"""The galleries of one data folder: each is found, read and written to in one way."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from sphereid.gallery import audit
from sphereid.gallery.audit import AuditLevel, Event
from sphereid.gallery.audit.writer import AuditWriter
from sphereid.gallery.errors import NotFoundError
from sphereid.gallery.gallery_index import CHANGING, GalleryIndex
from sphereid.gallery.index.kinds import IndexSetting
from sphereid.gallery.maintenance import Maintenance
from sphereid.gallery.snapshot import SnapshotFolder
from sphereid.gallery.store import answers
from sphereid.gallery.store.database import Database
from sphereid.gallery.thresholds.calibration import ImpostorCalibration
from sphereid.gallery.types import Gallery
from sphereid.gallery.writes import Change, Keyed
from sphereid.storage.errors import StorageError

T = TypeVar("T")


class Registry:
    """What every part of `GalleryService` stands on: the database, the galleries in memory, and the audit
    log."""

    def __init__(
        self,
        database: Database,
        data_dir: Path,
        calibrations: Mapping[str | None, ImpostorCalibration],
        index: IndexSetting = "auto",
        audit_level: AuditLevel = "all",
    ) -> None:
        self._database = database
        self._snapshots = data_dir / "index"
        self._calibrations = dict(calibrations)
        self._live: dict[str, GalleryIndex] = {}
        self._galleries = threading.Lock()
        self._maintenance = Maintenance(database, lambda: list(self._live.values()), index)
        self.audit = AuditWriter(database, data_dir, audit_level)

    def reading(self) -> AbstractContextManager[Connection]:
        """A short read transaction, for the rest of the gallery's room."""
        return self._database.reading()

    def _make_live(self, gallery: Gallery) -> GalleryIndex:
        return GalleryIndex(
            self._database, SnapshotFolder(self._snapshots, gallery.id, self._database.vault), gallery
        )

    def _find(self, gallery_id: str) -> GalleryIndex:
        live = self._live.get(gallery_id)
        if live is None:
            raise NotFoundError("gallery_not_found", f"there is no gallery {gallery_id!r}")
        return live

    @contextmanager
    def _reading(self, gallery_id: str) -> Iterator[Connection]:
        """A read of the rows of a gallery that exists."""
        self._find(gallery_id)
        with self._database.reading() as tx:
            yield tx

    def _write(
        self, live: GalleryIndex, work: Callable[[Connection], Change[T]], keyed: Keyed[T] | None
    ) -> T:
        """Carry out a write: commit, bring the index along, answer."""
        with live.writer:
            with self._writing(live) as tx:
                change = work(tx)
                settle(tx, change.result, keyed, *change.events)
            if change.rebuild:
                live.catch_up()
            else:
                live.apply(change.gallery, change.removed, change.added)
        return change.result

    @contextmanager
    def _writing(self, live: GalleryIndex) -> Iterator[Connection]:
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

    def _retry_on_model_change(self, gallery_id: str, work: Callable[[GalleryIndex], T]) -> T:
        """Do what reads a gallery; once more where another model's embeddings took over on the way."""
        while True:
            live = self._find(gallery_id)
            live.give_way()
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


def settle(tx: Connection, result: T, keyed: Keyed[T] | None, *events: Event) -> None:
    """What goes into the transaction of every write beside its own rows."""
    audit.record(tx, events)
    if keyed is not None:
        answers.remember(tx, keyed.key, keyed.fingerprint, keyed.render(result))
