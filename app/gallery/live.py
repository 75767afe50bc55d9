"""One gallery in memory: its rules as of the last write, and the index that follows the database."""

import logging
import threading
import time
from collections.abc import Iterator

import numpy as np
from sqlalchemy import Connection

from app.gallery import store
from app.gallery.database import Database
from app.gallery.decisions import template_of
from app.gallery.errors import StorageError
from app.gallery.index.kinds import new_index
from app.gallery.index.ports import Keys, Similarities, VectorIndex
from app.gallery.locks import ReadWriteLock
from app.gallery.models import ORDINAL_BITS
from app.gallery.snapshot import SnapshotFolder
from app.gallery.types import Gallery, Vectors

log = logging.getLogger(__name__)

_CHUNK = 10_000

NO_KEYS: Keys = np.empty(0, np.int64)


class LiveGallery:
    """The index is a projection of the database: entries are faces, or the means of identities' faces.

    A write holds `writer` from before its transaction until `apply` has brought the index along; then it is
    answered. Where that goes wrong, `stale` is set and the next use compares the index with the database.
    """

    def __init__(self, database: Database, folder: SnapshotFolder, gallery: Gallery) -> None:
        self.writer = threading.RLock()
        self.stale = True
        self.gallery = gallery
        self.changed_at = time.monotonic()
        self._database = database
        self._folder = folder
        self._lock = ReadWriteLock()
        self._index: VectorIndex | None = None
        self._saved_revision: int | None = None

    @property
    def entries(self) -> str:
        return "means" if self.gallery.template == "mean" else "faces"

    @property
    def dimension(self) -> int | None:
        """Length of the embeddings; None until the first was enrolled."""
        return None if self._index is None else self._index.dimension

    @property
    def unsaved(self) -> bool:
        """Whether the snapshot on disk is missing or of an older revision."""
        return self._index is not None and self._saved_revision != self.gallery.revision

    def open(self) -> None:
        """Load the snapshot where there is a fitting one, and catch up with the database."""
        if self.gallery.contract is not None:
            loaded = self._folder.load(contract=self.gallery.contract, entries=self.entries)
            if loaded is not None:
                self._index, self._saved_revision = loaded
                self.stale = self._saved_revision != self.gallery.revision
        if self.stale:
            self.catch_up()

    def catch_up(self) -> None:
        """Compare with the database and add and remove what differs. Numbers are never given twice, so equal
        sets of keys mean equal vectors."""
        with self.writer, self._database.reading() as tx:
            gallery = store.get_gallery(tx, self.gallery.id)
            means = gallery.template == "mean"
            wanted = store.template_keys(tx, gallery.id) if means else store.face_numbers(tx, gallery.id)
            dimension = store.dimension_of(tx, gallery.id)
            with self._lock.writing():
                index = self._index
                if index is None or gallery.template != self.gallery.template:
                    index = new_index(dimension) if dimension is not None else None
                present = NO_KEYS if index is None else index.keys()
                gone = np.setdiff1d(present, wanted, assume_unique=True)
                missing = np.setdiff1d(wanted, present, assume_unique=True)
                if index is not None:
                    index.remove(gone)
                    for keys, vectors in _entries(tx, gallery, missing, len(wanted)):
                        index.add(keys, vectors)
                self.gallery, self._index, self.stale = gallery, index, False
            if len(gone):
                self._folder.drop()
                self._saved_revision = None
            if len(gone) or len(missing):
                log.info(
                    "gallery %s: index +%d -%d at revision %d",
                    gallery.id,
                    len(missing),
                    len(gone),
                    gallery.revision,
                )

    def ready(self) -> None:
        """Catch up first where an earlier write went wrong half-way."""
        if self.stale:
            self.catch_up()

    def apply(
        self, gallery: Gallery, removed: Keys = NO_KEYS, added: tuple[Keys, Vectors] | None = None
    ) -> None:
        """Bring the index to a committed write. Removals take the snapshot off the disk too."""
        try:
            with self._lock.writing():
                if self._index is None and added is not None:
                    self._index = new_index(added[1].shape[1])
                if self._index is not None:
                    if len(removed):
                        self._index.remove(removed)
                    if added is not None:
                        self._index.add(*added)
                self.gallery = gallery
                self.changed_at = time.monotonic()
            if len(removed):
                self._folder.drop()
                self._saved_revision = None
        except Exception:
            self.stale = True
            raise

    def search(self, queries: Vectors, k: int) -> tuple[Gallery, Similarities, Keys]:
        """The k nearest entries (all where there are fewer), and the gallery as of this search."""
        self.ready()
        with self._lock.reading():
            if self._index is None:
                shape = (len(queries), 0)
                return self.gallery, np.empty(shape, np.float32), np.empty(shape, np.int64)
            return self.gallery, *self._index.search(queries, k)

    def size(self) -> int:
        """Entries that each probe is compared with."""
        return 0 if self._index is None else len(self._index)

    def save(self) -> None:
        """Write the snapshot where it is behind. Searches go on, writes wait."""
        with self.writer, self._lock.reading():
            index, gallery = self._index, self.gallery
            if index is None or self.stale or not self.unsaved or gallery.contract is None:
                return
            try:
                self._folder.save(
                    index, revision=gallery.revision, contract=gallery.contract, entries=self.entries
                )
            except (OSError, RuntimeError) as error:
                raise StorageError(
                    f"cannot write the index snapshot of gallery {gallery.id!r}: {error}"
                ) from error
            self._saved_revision = gallery.revision

    def discard(self) -> None:
        """Forget the index and its snapshot: the gallery was deleted."""
        with self._lock.writing():
            self._index = None
        self._folder.drop()


def _entries(tx: Connection, gallery: Gallery, missing: Keys, total: int) -> Iterator[tuple[Keys, Vectors]]:
    """The vectors of the missing keys: one pass over the table where most are missing, look-ups otherwise."""
    if gallery.template == "mean":
        for some in np.array_split(missing, len(missing) // _CHUNK + 1):
            numbers, vectors = store.vectors_of_identities(tx, (some >> ORDINAL_BITS).tolist())
            owners, starts = np.unique(numbers >> ORDINAL_BITS, return_index=True)
            order = np.argsort(some)
            if len(owners):
                yield some[order], np.stack([template_of(v) for v in np.split(vectors, starts[1:])])
    elif len(missing) > total // 4:
        for numbers, vectors in store.all_vectors(tx, gallery.id):
            wanted = np.isin(numbers, missing, assume_unique=True)
            yield numbers[wanted], vectors[wanted]
    else:
        for some in np.array_split(missing, len(missing) // _CHUNK + 1):
            if len(some):
                yield store.vectors(tx, some.tolist())
