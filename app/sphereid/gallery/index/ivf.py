"""Inverted lists: vectors lie with the nearest of some thousand centroids, and a search reads a few lists."""

import math
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from sphereid.gallery.index.ports import Keys, Similarities, sink
from sphereid.gallery.types import Vectors

_faiss: Any = faiss  # its stubs lag behind it

PROBES = 3.0
"""Lists that a search reads: so many times the square root of their number. With embeddings of identities of
four faces (`benchmarks/gallery.py`) that finds 993 of 1,000 nearest faces at 100,000."""

POINTS_A_LIST = 48
"""Vectors per centroid that the clustering sees; FAISS warns below 39."""

ITERATIONS = 10

_PQ_DIMENSIONS = 4
"""Numbers that one byte of a product quantizer stands for."""


class IvfIndex:
    """`VectorIndex` over FAISS's inverted files: float32 (`ivf`), a byte a number (`ivf-sq8`) or a byte for
    four (`ivf-pq`). Built from the vectors that it starts with; deletes go through a hash table from key to
    place."""

    exact = False

    def __init__(self, index: Any, kind: str, trained_on: int) -> None:
        self.kind = kind
        self.lossless = kind == "ivf"
        self._index = index
        self._trained_on = trained_on

    @classmethod
    def trained(cls, kind: str, sample: Vectors, expected: int) -> "IvfIndex":
        """An empty index for about `expected` vectors, clustered on a random `sample` (M, D) of them."""
        dimension = sample.shape[1]
        lists = lists_for(expected)
        quantizer = faiss.IndexFlatIP(dimension)
        metric = faiss.METRIC_INNER_PRODUCT
        index: Any
        if kind == "ivf":
            index = faiss.IndexIVFFlat(quantizer, dimension, lists, metric)
        elif kind == "ivf-sq8":
            codec = faiss.ScalarQuantizer.QT_8bit
            index = faiss.IndexIVFScalarQuantizer(quantizer, dimension, lists, codec, metric)
        else:
            index = faiss.IndexIVFPQ(
                quantizer, dimension, lists, max(1, dimension // _PQ_DIMENSIONS), 8, metric
            )
        index.cp.niter, index.cp.spherical = ITERATIONS, True
        index.cp.max_points_per_centroid = POINTS_A_LIST
        index.train(np.ascontiguousarray(sample, dtype=np.float32))
        index.set_direct_map_type(_faiss.DirectMap.Hashtable)
        return cls(index, kind, expected)

    @property
    def dimension(self) -> int:
        return int(self._index.d)

    @property
    def worn(self) -> bool:
        return not 0.25 <= len(self) / max(self._trained_on, 1) <= 4

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def keys(self) -> Keys:
        lists = self._index.invlists
        sizes = [lists.list_size(i) for i in range(self._index.nlist)]
        parts = [faiss.rev_swig_ptr(lists.get_ids(i), n) for i, n in enumerate(sizes) if n]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def add(self, keys: Keys, vectors: Vectors) -> None:
        if len(keys):
            self._index.add_with_ids(
                np.ascontiguousarray(vectors, dtype=np.float32), np.ascontiguousarray(keys)
            )

    def remove(self, keys: Keys) -> int:
        return int(self._index.remove_ids(np.ascontiguousarray(keys))) if len(keys) else 0

    def search(self, queries: Vectors, k: int) -> tuple[Similarities, Keys]:
        k = min(k, len(self))
        if not k:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        lists = self._index.nlist
        # A long list of neighbors wants more lists read; all of them make the search exhaustive.
        probes = min(lists, max(round(PROBES * math.sqrt(lists)), math.ceil(4 * k * lists / len(self))))
        options = _faiss.SearchParametersIVF(nprobe=probes)
        similarities, keys = self._index.search(np.ascontiguousarray(queries, np.float32), k, params=options)
        similarities[keys < 0] = -np.inf
        return similarities, keys

    def save(self, target: Path | Any) -> None:
        faiss.write_index(self._index, sink(target))

    @classmethod
    def restored(cls, index: Any) -> "IvfIndex":
        """From what `save` wrote and FAISS read."""
        kinds = {
            faiss.IndexIVFFlat: "ivf",
            faiss.IndexIVFScalarQuantizer: "ivf-sq8",
            faiss.IndexIVFPQ: "ivf-pq",
        }
        return cls(index, kinds[type(index)], index.ntotal)


def lists_for(count: int) -> int:
    """Four times the square root, to the nearest power of two, few enough to train: 4,096 at a million."""
    wanted: int = 2 ** round(math.log2(4 * math.sqrt(max(count, 1))))
    return max(1, min(wanted, count // POINTS_A_LIST))


def sample_size(count: int) -> int:
    """How many random vectors `IvfIndex.trained` wants to see."""
    return min(count, max(POINTS_A_LIST * lists_for(count), 50_000))
