"""One gallery in memory: its rules as of the last write, and the index that follows the database."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
from sqlalchemy import Connection

from sphereid.gallery import index_entries, store
from sphereid.gallery.index.kinds import (
    IndexSetting,
    Kind,
    empty_index,
    new_index,
    training_size,
    wanted_kind,
)
from sphereid.gallery.index.ports import Keys, Similarities, VectorIndex
from sphereid.gallery.snapshot import SnapshotFolder
from sphereid.gallery.store.database import Database
from sphereid.gallery.types import Gallery, Vectors
from sphereid.storage.errors import StorageError
from sphereid.storage.read_write_lock import ReadWriteLock

log = logging.getLogger(__name__)

REFINE = 4
"""Entries that a lossy index is asked for, for each one wanted; the true cosines choose among them."""

CHANGING = "changing"

GIVE_WAY_S = 0.01
"""How long a search lets a write go first."""

NO_KEYS: Keys = np.empty(0, np.int64)


class GalleryIndex:
    """The index is a projection of the database: entries are faces, or the means of identities' faces.

    A write holds `writer` from before its transaction until `apply` has brought the index along; then it is
    answered. Where that goes wrong, `stale` is set and the next use compares the index with the database.
    """

    def __init__(self, database: Database, folder: SnapshotFolder, gallery: Gallery) -> None:
        self.writer = threading.RLock()
        self.stale = True
        self.gallery = gallery
        self.changed_at = time.monotonic()
        self._changing = False
        self._database = database
        self._folder = folder
        self._lock = ReadWriteLock()
        self._index: VectorIndex | None = None
        self._saved_revision: int | None = None
        self._journal: list[tuple[Keys, tuple[Keys, Vectors] | None]] | None = None

    @property
    def entries(self) -> str:
        return "means" if self.gallery.template == "mean" else "faces"

    @property
    def dimension(self) -> int | None:
        """Length of the embeddings; None until the first was enrolled."""
        return None if self._index is None else self._index.dimension

    @property
    def contract(self) -> str | None:
        """Of the embeddings; `CHANGING` while a write exchanges them."""
        return CHANGING if self._changing else self.gallery.contract

    @contextmanager
    def changing_model(self, tx: Connection, gallery: Gallery) -> Iterator[None]:
        """Another model's embeddings, which `tx` has written, take over: their index is built here, while the
        old one answers, and takes its place at the end of the block, in which the caller commits. In the
        block, what index and database say does not fit together. The caller holds `writer`."""
        wanted = index_entries.keys(tx, gallery)
        dimension = store.dimension_of(tx, gallery.id)
        fresh = new_index(dimension) if dimension is not None else None
        for start in range(0, len(wanted), index_entries.CHUNK):
            assert fresh is not None
            fresh.add(*index_entries.some(tx, gallery, wanted[start : start + index_entries.CHUNK]))
        self._changing = True
        try:
            yield
            with self._lock.writing():
                self.gallery, self._index, self._journal = gallery, fresh, None
                self.changed_at = time.monotonic()
            self._folder.drop()
            self._saved_revision = None
        except BaseException:
            self.stale = True
            raise
        finally:
            self._changing = False

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
        sets of keys mean equal vectors, unless another model's took their place: then it begins anew."""
        with self.writer, self._database.reading() as tx:
            gallery = store.get_gallery(tx, self.gallery.id)
            wanted = index_entries.keys(tx, gallery)
            dimension = store.dimension_of(tx, gallery.id)
            with self._lock.writing():
                self._journal = None
                index = self._index
                other_model = self.gallery.contract not in (None, gallery.contract)
                if index is None or other_model or gallery.template != self.gallery.template:
                    index = new_index(dimension) if dimension is not None else None
                present = NO_KEYS if index is None else index.keys()
                gone = np.setdiff1d(present, wanted, assume_unique=True)
                missing = np.setdiff1d(wanted, present, assume_unique=True)
                if index is not None:
                    index.remove(gone)
                    self._fill(index, gallery, tx, missing, len(wanted))
                self.gallery, self._index, self.stale = gallery, index, False
            if len(gone) or other_model:
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

    def _fill(self, index: VectorIndex, gallery: Gallery, tx: Connection, missing: Keys, total: int) -> None:
        if len(missing) > total // 4:  # one pass over the table beats that many look-ups
            for keys, vectors in index_entries.everything(self._database, gallery):
                wanted = np.isin(keys, missing, assume_unique=True)
                index.add(keys[wanted], vectors[wanted])
        else:
            for start in range(0, len(missing), index_entries.CHUNK):
                index.add(*index_entries.some(tx, gallery, missing[start : start + index_entries.CHUNK]))

    def give_way(self) -> None:
        """Wait a moment for a write that is under way: beside it a search only fights it for the interpreter,
        and both take longer."""
        if self.writer.acquire(timeout=GIVE_WAY_S):
            self.writer.release()

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
                if self._journal is not None:
                    self._journal.append((removed, added))
                self.gallery = gallery
                self.changed_at = time.monotonic()
            if len(removed):
                self._folder.drop()
                self._saved_revision = None
        except Exception:
            self.stale = True
            raise

    def search(self, queries: Vectors, k: int) -> tuple[Similarities, Keys]:
        """The k nearest entries (all where there are fewer), (Q, <= k), best first with their true cosines;
        -inf and key -1 where an approximate index found fewer."""
        self.ready()
        with self._lock.reading():
            index = self._index
            if index is None:
                return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
            if index.lossless:
                return index.search(queries, k)
            _, keys = index.search(queries, REFINE * k)
        return self._refined(queries, keys, k)

    def _refined(self, queries: Vectors, keys: Keys, k: int) -> tuple[Similarities, Keys]:
        """Compare once more with the vectors as they were enrolled, and keep the k best."""
        with self._database.reading() as tx:
            known, vectors = index_entries.some(tx, self.gallery, np.unique(keys[keys >= 0]))
        if not len(known):
            return np.full((len(queries), 0), -np.inf, np.float32), np.empty((len(queries), 0), np.int64)
        places = np.searchsorted(known, keys).clip(max=len(known) - 1)
        similarities = np.take_along_axis(queries @ vectors.T, places, axis=1)
        similarities[known[places] != keys] = -np.inf
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        similarities = np.take_along_axis(similarities, order, axis=1)
        keys = np.take_along_axis(keys, order, axis=1)
        return similarities, np.where(np.isfinite(similarities), keys, -1)

    def regenerate(self, setting: IndexSetting, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Build the index anew where its kind doesn't fit its size or it is worn, while the old one answers;
        the writes of the meantime are replayed before the two change places. False where nothing changed."""
        with self.writer:
            self.ready()
            old, gallery = self._index, self.gallery
            if old is None:
                return False
            kind = wanted_kind(setting, len(old), cast(Kind, old.kind))
            if kind == old.kind and not old.worn:
                return False
            keys, self._journal = old.keys(), []
        log.info("gallery %s: building index %s for %d entries", gallery.id, kind, len(keys))
        sample = np.random.default_rng(0).permutation(keys)[: training_size(kind, len(keys))]
        with self._database.reading() as tx:
            _, vectors = index_entries.some(tx, gallery, sample)
        fresh = empty_index(kind, old.dimension, vectors, len(keys))
        built = [NO_KEYS]
        for chunk, vectors in index_entries.everything(self._database, gallery):
            if stopping():
                return False
            fresh.add(chunk, vectors)
            built.append(chunk)
        return self._exchange(fresh, np.concatenate(built))

    def _exchange(self, fresh: VectorIndex, built: Keys) -> bool:
        """Replay what was written since the build began, which it may have read already, and put it in
        place."""
        with self.writer:
            if self._journal is None or self.stale:  # the index was compared with the database meanwhile
                return False
            for removed, added in self._journal:
                fresh.remove(removed)
                if added is not None:
                    new = ~np.isin(added[0], built)
                    fresh.add(added[0][new], added[1][new])
            with self._lock.writing():
                self._index, self._journal, self._saved_revision = fresh, None, None
        log.info("gallery %s: index %s took over", self.gallery.id, fresh.kind)
        return True

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
            self._index = self._journal = None
        self._folder.drop()
