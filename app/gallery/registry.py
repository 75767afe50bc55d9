"""The galleries of one data folder: each is found, read and written to in one way."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from app.gallery import answers, audit
from app.gallery.audit import AuditLevel, Event
from app.gallery.calibration import ImpostorCalibration
from app.gallery.database import Database
from app.gallery.errors import NotFoundError, StorageError
from app.gallery.index.kinds import IndexSetting
from app.gallery.live import CHANGING, LiveGallery
from app.gallery.maintenance import Maintenance
from app.gallery.snapshot import SnapshotFolder
from app.gallery.types import Gallery
from app.gallery.watchlog import WatchLog
from app.gallery.writes import Change, Keyed

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
        self._live: dict[str, LiveGallery] = {}
        self._galleries = threading.Lock()
        self._maintenance = Maintenance(database, lambda: list(self._live.values()), index)
        self.audit = WatchLog(database, data_dir, audit_level)

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

    @contextmanager
    def _reading(self, gallery_id: str) -> Iterator[Connection]:
        """A read of the rows of a gallery that exists."""
        self._find(gallery_id)
        with self._database.reading() as tx:
            yield tx

    def _write(self, live: LiveGallery, work: Callable[[Connection], Change[T]], keyed: Keyed[T] | None) -> T:
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
