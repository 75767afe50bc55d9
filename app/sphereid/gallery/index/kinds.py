"""Which kinds there are, which one fits a size, how one is built, and reading one back from disk."""

from pathlib import Path
from typing import Any, Literal, get_args

import faiss

from sphereid.gallery.index.fastscan import FastScanIndex
from sphereid.gallery.index.flat import FlatIndex
from sphereid.gallery.index.hnsw import HnswIndex
from sphereid.gallery.index.ivf import IvfIndex, sample_size
from sphereid.gallery.index.ports import VectorIndex, sink
from sphereid.gallery.types import Vectors

Kind = Literal["flat", "flat-fp16", "flat-sq8", "hnsw", "ivf", "ivf-fast", "ivf-sq8", "ivf-pq"]
IndexSetting = Literal[
    "auto", "flat", "flat-fp16", "flat-sq8", "hnsw", "ivf", "ivf-fast", "ivf-sq8", "ivf-pq"
]

KINDS: tuple[Kind, ...] = get_args(Kind)

IVF_FROM = 50_000
"""Vectors from which `auto` leaves the exact scan: there it takes some milliseconds a query on two cores."""

SQ8_FROM = 4_000_000
"""Vectors from which `auto` keeps one byte a number: 4 GiB at 256 numbers in float32."""

PQ_FROM = 30_000_000

SMALLEST = {"flat-sq8": 1000, "ivf": 2000, "ivf-fast": 2000, "ivf-sq8": 2000, "ivf-pq": 20_000, "hnsw": 1000}
"""Vectors below which a kind isn't worth its training, and the exact scan serves."""


def wanted_kind(setting: IndexSetting, count: int, current: Kind) -> Kind:
    """The kind for `count` vectors. It changes back only well below the size at which it came, so that a
    gallery at the border doesn't swing."""
    if setting != "auto":
        return setting if count >= SMALLEST.get(setting, 0) else "flat"
    fit: Kind = "flat"
    for kind, start in (("ivf-fast", IVF_FROM), ("ivf-sq8", SQ8_FROM), ("ivf-pq", PQ_FROM)):
        if count >= start or (kind == current and count >= start // 2):
            fit = kind  # type: ignore[assignment]
    return fit


def new_index(dimension: int) -> VectorIndex:
    """An empty index for a new gallery."""
    return FlatIndex(dimension)


def training_size(kind: Kind, count: int) -> int:
    """How many random vectors `empty_index` wants to see for `count`."""
    if kind.startswith("ivf"):
        return sample_size(count)
    return min(count, 20_000) if kind == "flat-sq8" else 0


def empty_index(kind: Kind, dimension: int, sample: Vectors, expected: int) -> VectorIndex:
    """An index of a kind, without vectors, made for `expected` of them from a `sample` (M, D)."""
    if kind == "ivf-fast":
        return FastScanIndex.trained(sample, expected)
    if kind.startswith("ivf"):
        return IvfIndex.trained(kind, sample, expected)
    if kind == "hnsw":
        return HnswIndex(dimension)
    return FlatIndex(dimension, kind, sample if len(sample) else None)


def load_index(source: Path | Any) -> VectorIndex:
    """What `VectorIndex.save` wrote, from a file or a `faiss.IOReader`. Raises RuntimeError where it isn't
    one of ours."""
    read = faiss.read_index(sink(source))
    if isinstance(read, faiss.IndexIDMap):
        inner = faiss.downcast_index(read.index)
        if isinstance(inner, faiss.IndexRefine):
            return FastScanIndex.restored(read)
        if isinstance(inner, faiss.IndexHNSW):
            return HnswIndex.restored(read)
        if isinstance(inner, (faiss.IndexFlat, faiss.IndexScalarQuantizer)):
            return FlatIndex.restored(read)
    if isinstance(read, faiss.IndexIVF):
        return IvfIndex.restored(read)
    raise RuntimeError("it holds no index that this version knows")
