"""Inverted lists of four-bit codes that are compared in registers, and the vectors themselves to choose among
the best of them.

André, Kermarrec and Le Scouarnec, Quicker ADC: unlocking the hidden potential of product quantization with
SIMD, 2019. FAISS's name for it is `IVF…,PQ…x4fs,RFlat`.
"""

import math
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from sphereid.gallery.index.ivf import ITERATIONS, POINTS_A_LIST, lists_for
from sphereid.gallery.index.ports import Keys, Similarities, places_of, sink
from sphereid.gallery.types import Vectors

_faiss: Any = faiss  # its stubs lag behind it

GONE = -1

PROBES = 4.0
"""Lists that a search reads: so many times the square root of their number. They hold half a byte for
two numbers, so that more of them can be read than `ivf` reads."""

REFINED = 100
"""The best by their codes whose true similarities are computed, at least, and four for each one wanted."""

_SPARE = 1.05
"""Room for vectors that is kept beside those of a snapshot: without it the first one added would move all."""


class FastScanIndex:
    """`VectorIndex` over FAISS's `IndexRefineFlat` of an `IndexIVFPQFastScan`: `ivf-fast`. Similarities are
    true cosines. The lists name rows of the vectors; a removed vector's row is set to zero and its code taken
    out of its list, and the row stays empty until too many of them make the index `worn`."""

    kind = "ivf-fast"
    exact = False
    lossless = True

    def __init__(self, index: Any, keys: Keys, expected: int) -> None:
        """index: the `IndexRefineFlat`. keys: of its rows, `GONE` where one is empty. expected: vectors that
        the lists were made for."""
        self._index = index
        self._base: Any = _faiss.downcast_index(index.base_index)
        self._rows: Any = _faiss.downcast_index(index.refine_index)
        self._lists: Any = _faiss.downcast_InvertedLists(self._base.invlists)
        self._keys = keys
        self._gone = int((keys == GONE).sum())
        self._expected = expected
        self._owner: Any = None

    @classmethod
    def trained(cls, sample: Vectors, expected: int) -> "FastScanIndex":
        """An empty index for about `expected` vectors, clustered on a random `sample` (M, D) of them."""
        dimension = sample.shape[1]
        base: Any = _faiss.IndexIVFPQFastScan(
            faiss.IndexFlatIP(dimension),
            dimension,
            lists_for(expected),
            dimension // 2 if dimension % 2 == 0 else dimension,
            4,
            faiss.METRIC_INNER_PRODUCT,
        )
        base.by_residual = False  # then the lists share one table for each query
        base.cp.niter, base.cp.spherical, base.cp.max_points_per_centroid = ITERATIONS, True, POINTS_A_LIST
        base.train(np.ascontiguousarray(sample, dtype=np.float32))
        index = cls(_faiss.IndexRefineFlat(base), np.empty(0, np.int64), expected)
        index._reserve(expected)
        return index

    @property
    def dimension(self) -> int:
        return int(self._index.d)

    @property
    def worn(self) -> bool:
        fits = 0.25 <= len(self) / max(self._expected, 1) <= 4
        return not fits or self._gone > max(1000, self._used // 5)

    @property
    def _used(self) -> int:
        """Rows, the empty ones with them."""
        return int(self._index.ntotal)

    def __len__(self) -> int:
        return self._used - self._gone

    def keys(self) -> Keys:
        used = self._keys[: self._used]
        keys: Keys = used[used != GONE]
        return keys

    def add(self, keys: Keys, vectors: Vectors) -> None:
        start, end = self._used, self._used + len(keys)
        if end > len(self._keys):
            grown = np.full(max(end, 2 * len(self._keys), 1024), GONE, np.int64)
            grown[:start] = self._keys[:start]
            self._keys = grown
        if len(keys):
            self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        self._keys[start:end] = keys

    def remove(self, keys: Keys) -> int:
        places = places_of(self._keys[: self._used], keys)
        if not len(places):
            return 0
        rows = np.asarray(faiss.rev_swig_ptr(self._rows.get_xb(), self._used * self.dimension))
        rows = rows.reshape(self._used, self.dimension)
        _, nearest = self._base.quantizer.search(np.ascontiguousarray(rows[places]), 1)
        left = [
            place
            for place, lists in zip(places.tolist(), nearest[:, 0].tolist(), strict=True)
            if not self._taken_out(place, lists)
        ]
        if left:  # rounding put it into another list than it would go to now
            self._base.remove_ids(np.array(left, np.int64))
            self._base.ntotal = self._used  # what it numbers the next rows from
        rows[places] = 0
        self._keys[places] = GONE
        self._gone += len(places)
        return len(places)

    def _taken_out(self, place: int, number: int) -> bool:
        """Remove a row's code from a list; the list's last code moves there. False where it isn't in it."""
        size = self._lists.list_size(number)
        ids = faiss.rev_swig_ptr(self._lists.get_ids(number), size) if size else np.empty(0, np.int64)
        found = np.flatnonzero(ids == place)
        if not len(found):
            return False
        at, last = int(found[0]), size - 1
        packer, codes = self._lists.packer, self._lists.get_codes(number)
        code = np.zeros(packer.code_size, np.uint8)
        packer.unpack_1_c(codes, last, faiss.swig_ptr(code))
        packer.pack_1_c(faiss.swig_ptr(code), at, codes)
        ids[at] = ids[last]
        code[:] = 0
        packer.pack_1_c(faiss.swig_ptr(code), last, codes)
        self._lists.resize(number, last)
        return True

    def search(self, queries: Vectors, k: int) -> tuple[Similarities, Keys]:
        k = min(k, len(self))
        if not k:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        lists = self._base.nlist
        # A long list of neighbors wants more lists read; all of them make the search exhaustive.
        probes = min(lists, max(round(PROBES * math.sqrt(lists)), math.ceil(4 * k * lists / len(self))))
        options = _faiss.IndexRefineSearchParameters(
            k_factor=max(REFINED, 4 * k) / k, base_index_params=_faiss.SearchParametersIVF(nprobe=probes)
        )
        found, places = self._index.search(np.ascontiguousarray(queries, np.float32), k, params=options)
        keys = np.where(places >= 0, self._keys[places], GONE)
        return np.where(keys >= 0, found, -np.inf).astype(np.float32), keys

    def save(self, target: Path | Any) -> None:
        named = faiss.IndexIDMap(faiss.IndexFlatIP(self.dimension))  # takes only empty ones: swap after
        owned = self._index.this.own()
        named.index = self._index
        self._index.this.own(owned)
        faiss.copy_array_to_vector(self._keys[: self._used], named.id_map)
        named.ntotal = self._used
        faiss.write_index(named, sink(target))

    @classmethod
    def restored(cls, named: Any) -> "FastScanIndex":
        """From what `save` wrote and FAISS read."""
        keys: NDArray[np.int64] = faiss.vector_to_array(named.id_map)
        index = cls(faiss.downcast_index(named.index), keys, int((keys != GONE).sum()))
        index._owner = named  # frees the memory when this index goes; see FlatIndex.restored
        index._reserve(int(len(keys) * _SPARE) + 1024)
        return index

    def _reserve(self, rows: int) -> None:
        """Make room for so many vectors: a vector of C++ that shrinks keeps its memory."""
        used = self._rows.codes.size()
        self._rows.codes.resize(max(used, rows * self._rows.code_size))
        self._rows.codes.resize(used)
