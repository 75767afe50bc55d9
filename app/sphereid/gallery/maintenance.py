"""What runs beside the requests: an index of the kind that fits, snapshots in quiet moments, and scrubbing
that a reader held up."""

import logging
import threading
import time
from collections.abc import Callable

from sphereid.gallery.gallery_index import GalleryIndex
from sphereid.gallery.index.kinds import IndexSetting
from sphereid.gallery.store.database import Database
from sphereid.storage.errors import StorageError

log = logging.getLogger(__name__)

EVERY_S = 5.0
QUIET_S = 30.0
"""A snapshot is written when its gallery saw no write for so long: writes would wait for the disk."""


class Maintenance:
    """A daemon thread over all galleries. It only saves time: what it leaves undone, `close` or the next
    start does."""

    def __init__(
        self, database: Database, galleries: Callable[[], list[GalleryIndex]], index: IndexSetting = "auto"
    ) -> None:
        self._index = index
        self._database = database
        self._galleries = galleries
        self._stopping = threading.Event()
        self._scrub_pending = False
        self._thread = threading.Thread(target=self._run, name="gallery-maintenance", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> bool:
        """End the thread; False where that was done before."""
        if self._stopping.is_set():
            return False
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)  # the training of an index can't be broken off; it does no harm
        return True

    def scrub(self) -> bool:
        """Remove what the write-ahead log keeps of deleted rows; where a reader holds it, later and False."""
        try:
            done = self._database.scrub()
        except StorageError as error:
            log.warning("scrubbing the write-ahead log failed, will try again: %s", error)
            done = False
        self._scrub_pending = not done
        return done

    def save_all(self, quiet_for: float = 0.0) -> None:
        """Write every snapshot that is behind, of galleries without a write in the last `quiet_for`
        seconds."""
        for live in self._galleries():
            if live.unsaved and time.monotonic() - live.changed_at >= quiet_for:
                try:
                    live.save()
                except StorageError as error:
                    log.warning("%s", error)

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            try:
                if self._scrub_pending:
                    self.scrub()
                for live in self._galleries():
                    live.regenerate(self._index, self._stopping.is_set)
                self.save_all(QUIET_S)
            except Exception:
                log.exception("gallery maintenance failed, will try again")
