"""Every vector is compared."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from sphereid.gallery.index.ports import Keys, Similarities, places_of, sink
from sphereid.gallery.types import Vectors

_faiss: Any = faiss  # its stubs lag behind it

_CODECS = {"flat-fp16": faiss.ScalarQuantizer.QT_fp16, "flat-sq8": faiss.ScalarQuantizer.QT_8bit}

_BLOCK = 1024
"""Vectors whose largest similarity stands for them in the first step of the selection."""

_SCAN = 1 << 18
"""Vectors in one matrix product: bounds the similarities in memory, at 32 queries to 32 MiB."""

_FEW = 4
"""Queries up to which a pass over memory for each beats a matrix product for all."""

_SHARE = 1 << 22
"""Bytes of vectors below which another thread costs more than it saves."""


class FlatIndex:
    """`VectorIndex` over FAISS's flat codes: float32 (`flat`), half precision (`flat-fp16`) or a byte a
    number (`flat-sq8`). The vectors lie in FAISS's memory and go to disk through it.

    A float32 scan for few queries shares the vectors out among the cores and runs FAISS's inner products over
    each share, which keeps up with the memory; FAISS's own search spreads queries over cores, not vectors.
    For many queries it is a matrix product per block of vectors. `benchmarks/gallery.py` compares it with a
    plain sweep over the same bytes. A removed vector's place is taken by the last one, so a delete moves one
    row.
    """

    exact = True
    worn = False

    def __init__(self, dimension: int, kind: str = "flat", sample: Vectors | None = None) -> None:
        """kind: `flat`, `flat-fp16` or `flat-sq8`, which needs a `sample` of vectors (M, D) to set its
        steps."""
        self.kind, self.dimension = kind, dimension
        self.lossless = kind == "flat"
        self._owner: Any = None
        self._index: Any
        if self.lossless:
            self._index = faiss.IndexFlatIP(dimension)
        else:
            self._index = faiss.IndexScalarQuantizer(dimension, _CODECS[kind], faiss.METRIC_INNER_PRODUCT)
            self._index.train(np.zeros((1, dimension), np.float32) if sample is None else sample)
        self._keys = np.empty(0, np.int64)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def keys(self) -> Keys:
        return self._keys[: len(self)].copy()

    def add(self, keys: Keys, vectors: Vectors) -> None:
        start, end = len(self), len(self) + len(keys)
        if end > len(self._keys):
            grown = np.empty(max(end, 2 * len(self._keys), 1024), np.int64)
            grown[:start] = self._keys[:start]
            self._keys = grown
        self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        self._keys[start:end] = keys

    def remove(self, keys: Keys) -> int:
        places = places_of(self._keys[: len(self)], keys)
        rows = self._codes()
        # From the back, so that the row that moves into a gap is never one that has yet to go.
        end = len(self)
        for place in places[::-1].tolist():
            end -= 1
            rows[place], self._keys[place] = rows[end], self._keys[end]
        rows[end:] = 0  # the allocation keeps these bytes
        del rows
        self._index.codes.resize(end * self._index.code_size)
        self._index.ntotal = end
        return len(places)

    def search(self, queries: Vectors, k: int) -> tuple[Similarities, Keys]:
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        k = min(k, len(self))
        if not k:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        if not self.lossless:
            similarities, places = self._index.search(queries, k)
            return similarities, self._keys[places]
        rows = self._codes().view(np.float32)
        found: list[tuple[Similarities, NDArray[np.intp]]] = []
        for start in range(0, len(rows), _SCAN):
            similarities = inner_products(queries, rows[start : start + _SCAN])
            best = largest(similarities, k)
            found.append((np.take_along_axis(similarities, best, axis=1), best + start))
        similarities = np.concatenate([s for s, _ in found], axis=1)
        places = np.concatenate([p for _, p in found], axis=1)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        return (
            np.take_along_axis(similarities, order, axis=1),
            self._keys[np.take_along_axis(places, order, axis=1)],
        )

    def save(self, target: Path | Any) -> None:
        named = faiss.IndexIDMap(faiss.IndexFlatIP(self.dimension))  # takes only empty ones: swap after
        owned = self._index.this.own()
        named.index = self._index
        self._index.this.own(owned)  # the assignment took it away, and nobody would free the memory
        faiss.copy_array_to_vector(self._keys[: len(self)], named.id_map)
        named.ntotal = len(self)
        faiss.write_index(named, sink(target))

    @classmethod
    def restored(cls, named: Any) -> "FlatIndex":
        """From what `save` wrote and FAISS read."""
        inner: Any = faiss.downcast_index(named.index)
        kinds = {codec: kind for kind, codec in _CODECS.items()}
        kind = "flat" if isinstance(inner, faiss.IndexFlat) else kinds[inner.sq.qtype]
        index = cls(named.d, kind)
        index._keys = faiss.vector_to_array(named.id_map)
        index._index = inner
        # `named` frees the memory when this index goes. SWIG cannot be told that `inner` owns it: it would
        # drop a reference to its type table that it never took, and after a few of them crash.
        index._owner = named
        return index

    def _codes(self) -> NDArray[np.uint8]:
        """(N, bytes a vector) view of FAISS's own memory, valid until the next change."""
        width = int(self._index.code_size)
        if not len(self):
            return np.empty((0, width), np.uint8)
        flat = faiss.rev_swig_ptr(self._index.codes.data(), len(self) * width)
        return np.asarray(flat).reshape(len(self), width)


def inner_products(queries: Vectors, rows: Vectors) -> Similarities:
    """(Q, D) and (N, D) float32, both contiguous -> (Q, N)."""
    if len(queries) > _FEW:
        return queries @ rows.T
    found = np.empty((len(queries), len(rows)), np.float32)
    shares = max(1, min(_cores(), rows.nbytes // _SHARE))
    edges = np.linspace(0, len(rows), shares + 1).astype(int).tolist()

    def work(share: int) -> None:
        part = rows[edges[share] : edges[share + 1]]
        for query, out in zip(queries, found[:, edges[share] : edges[share + 1]], strict=True):
            _faiss.fvec_inner_products_ny(
                faiss.swig_ptr(out), faiss.swig_ptr(query), faiss.swig_ptr(part), rows.shape[1], len(part)
            )

    others = [_threads().submit(work, share) for share in range(1, shares)]
    work(0)
    for other in others:
        other.result()
    return found


@cache
def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _cores() - 1), thread_name_prefix="scan")


def largest(similarities: Similarities, k: int) -> NDArray[np.intp]:
    """(Q, N) -> (Q, min(k, N)) places of the k largest of each row, in no order.

    The k largest lie in the k blocks with the largest maxima: a maximum per block costs one pass at memory
    speed and leaves little to partition.
    """
    queries, n = similarities.shape
    whole = n // _BLOCK
    if k >= n:
        return np.broadcast_to(np.arange(n), (queries, n))
    if whole <= 2 * k:
        return np.argpartition(similarities, n - k, axis=1)[:, n - k :]
    body = similarities[:, : whole * _BLOCK].reshape(queries, whole, _BLOCK)
    blocks = np.argpartition(body.max(axis=2), whole - k, axis=1)[:, whole - k :]
    places = (blocks[:, :, None] * _BLOCK + np.arange(_BLOCK)).reshape(queries, -1)
    rest = np.broadcast_to(np.arange(whole * _BLOCK, n), (queries, n - whole * _BLOCK))
    places = np.concatenate([places, rest], axis=1)
    values = np.take_along_axis(similarities, places, axis=1)
    best = np.argpartition(values, values.shape[1] - k, axis=1)[:, values.shape[1] - k :]
    return np.take_along_axis(places, best, axis=1)
