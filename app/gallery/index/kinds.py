"""Which kinds there are, which one fits a size, and reading one back from disk."""

from pathlib import Path

import faiss

from app.gallery.index.flat import FlatIndex
from app.gallery.index.ports import VectorIndex


def new_index(dimension: int) -> VectorIndex:
    """An empty index for a new gallery."""
    return FlatIndex(dimension)


def load_index(path: Path) -> VectorIndex:
    """What `VectorIndex.save` wrote. Raises RuntimeError where the file isn't one of ours."""
    named = faiss.read_index(str(path))
    if isinstance(named, faiss.IndexIDMap) and isinstance(
        faiss.downcast_index(named.index), faiss.IndexFlatIP
    ):
        return FlatIndex.restored(named)
    raise RuntimeError(f"{path.name} holds no index that this version knows")
