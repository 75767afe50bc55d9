"""A navigable graph: each vector knows its neighbors, and a search walks towards the probe.

Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using HNSW graphs, 2016.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from sphereid.gallery.index.ports import Keys, Similarities, places_of, sink
from sphereid.gallery.types import Vectors

NEIGHBORS, BUILD_WIDTH, SEARCH_WIDTH = 32, 80, 96

GONE = -1

_faiss: Any = faiss  # its stubs lag behind it


class HnswIndex:
    """`VectorIndex` over FAISS's `IndexHNSWFlat`. The graph cannot lose a node: a removed vector is
    overwritten with zeros and its node stays as a waypoint that no search returns, until too many of them
    make it `worn`."""

    kind = "hnsw"
    exact = False
    lossless = True

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._index: Any = faiss.IndexHNSWFlat(dimension, NEIGHBORS, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = BUILD_WIDTH
        self._keys = np.empty(0, np.int64)
        self._gone = 0
        self._owner: Any = None

    @property
    def worn(self) -> bool:
        return self._gone > max(1000, len(self._keys) // 5)

    def __len__(self) -> int:
        return len(self._keys) - self._gone

    def keys(self) -> Keys:
        keys: Keys = self._keys[self._keys != GONE]
        return keys

    def add(self, keys: Keys, vectors: Vectors) -> None:
        self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        self._keys = np.concatenate([self._keys, keys])

    def remove(self, keys: Keys) -> int:
        places = places_of(self._keys, keys)
        if len(places):
            storage: Any = faiss.downcast_index(self._index.storage)
            total = len(self._keys) * self.dimension
            rows = np.asarray(faiss.rev_swig_ptr(storage.get_xb(), total)).reshape(-1, self.dimension)
            rows[places] = 0
            self._keys[places] = GONE
            self._gone += len(places)
        return len(places)

    def search(self, queries: Vectors, k: int) -> tuple[Similarities, Keys]:
        k = min(k, len(self))
        if not k:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        alive = self._keys != GONE
        options: Any = _faiss.SearchParametersHNSW(efSearch=max(SEARCH_WIDTH, 2 * k))
        if self._gone:
            bits = np.packbits(alive, bitorder="little")
            options.sel = faiss.IDSelectorBitmap(len(alive), faiss.swig_ptr(bits))
        found, places = self._index.search(np.ascontiguousarray(queries, np.float32), k, params=options)
        keys = np.where(places >= 0, self._keys[places], GONE)
        return np.where(keys >= 0, found, -np.inf).astype(np.float32), keys

    def save(self, target: Path | Any) -> None:
        named = faiss.IndexIDMap(faiss.IndexFlatIP(self.dimension))
        owned = self._index.this.own()
        named.index = self._index
        self._index.this.own(owned)
        faiss.copy_array_to_vector(self._keys, named.id_map)
        named.ntotal = len(self._keys)
        faiss.write_index(named, sink(target))

    @classmethod
    def restored(cls, named: Any) -> "HnswIndex":
        """From what `save` wrote and FAISS read."""
        index = cls(named.d)
        index._keys = faiss.vector_to_array(named.id_map)
        index._gone = int((index._keys == GONE).sum())
        index._index = faiss.downcast_index(named.index)
        index._owner = named  # frees the memory when this index goes; see FlatIndex.restored
        return index
