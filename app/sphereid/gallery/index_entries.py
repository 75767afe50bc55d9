"""What an index holds of a gallery, read from the database: its faces, or the means of its identities."""

from collections.abc import Iterator

import numpy as np
from sqlalchemy import Connection

from sphereid.gallery import store
from sphereid.gallery.index.ports import Keys
from sphereid.gallery.store.database import Database
from sphereid.gallery.store.tables import ORDINAL_BITS
from sphereid.gallery.thresholds.decisions import template_of
from sphereid.gallery.types import Gallery, Vectors

CHUNK = 10_000
"""Entries that are read at a time."""


def keys(tx: Connection, gallery: Gallery) -> Keys:
    """(N,) int64: the keys of all entries. An entry's vector never changes: a changed mean gets another
    key."""
    if gallery.template == "mean":
        return store.template_keys(tx, gallery.id)
    return store.face_numbers(tx, gallery.id)


def some(tx: Connection, gallery: Gallery, wanted: Keys) -> tuple[Keys, Vectors]:
    """The entries of some keys, by rising key; those that are gone are left out."""
    if gallery.template != "mean":
        return store.vectors(tx, np.sort(wanted).tolist())
    wanted = np.intersect1d(wanted, store.template_keys(tx, gallery.id))
    numbers, vectors = store.vectors_of_identities(tx, (wanted >> ORDINAL_BITS).tolist())
    if not len(wanted):
        return wanted, vectors
    _, starts = np.unique(numbers >> ORDINAL_BITS, return_index=True)
    return wanted, np.stack([template_of(faces) for faces in np.split(vectors, starts[1:])])


def everything(database: Database, gallery: Gallery) -> Iterator[tuple[Keys, Vectors]]:
    """All entries in chunks by rising key. Each chunk is a transaction of its own, so that a long read
    doesn't hold up the write-ahead log: what changes on the way may be in it or not."""
    if gallery.template == "mean":
        with database.reading() as tx:
            every = np.sort(keys(tx, gallery))
        for start in range(0, len(every), CHUNK):
            with database.reading() as tx:
                chunk = some(tx, gallery, every[start : start + CHUNK])
            yield chunk
        return
    last = -1
    while True:
        with database.reading() as tx:
            numbers, vectors = store.vectors_after(tx, gallery.id, last, CHUNK)
        if not len(numbers):
            return
        yield numbers, vectors
        last = int(numbers[-1])
